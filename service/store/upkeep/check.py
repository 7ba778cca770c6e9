"""The check of a whole store, or of one project: every partition, every record, and every key that begins with `scc:`.

The keys of Redis are scanned once, whatever the number of projects. Each page of the scan is verified as it comes: a key goes
to the check of its partition, is compared with its project's record, or is reported because nothing reads it.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.store.keys import (
    DERIVED,
    PARTITION_KINDS,
    PREFLIGHT,
    PROJECT_KINDS,
    STORE_KINDS,
    Owner,
    Partition,
    all_partitions,
    partition_number,
)
from service.store.manifest import Layout
from service.store.record import Project
from service.store.upkeep import partition_check, project_check
from service.store.upkeep.partition_check import Check
from service.store.upkeep.relocation import relocate
from service.store.verify import Finding, readable, verify_type

_PARTITION = re.compile(r"scc:\{([^{}.]+)\.(0|[1-9][0-9]{0,8})\}:([a-z]+)(?::(.*))?", re.DOTALL)
_PROJECT = re.compile(r"scc:\{([^{}.]+)\}:([a-z_]+)")
_STORE = re.compile(r"scc:(store|projects|sweep)|scc:(token|rate):([0-9a-f]+)")
#: Kinds of a partition's keys whose names have a rest after the kind.
_WITH_REST = frozenset({"session", "index", "blocks"})

#: A finding and the slug of its project, "" for the store.
Located = tuple[str, Finding]


@dataclass
class StoreCheck:
    """A check of `projects`. With `whole`, they are all projects of the store, and all other `scc:` keys are checked, too."""

    redis: RedisClient
    projects: Sequence[Project]
    layout: Layout
    whole: bool = True
    repair: bool = False
    #: Called with the number of sessions or keys just read.
    progress: Callable[[int], object] = lambda _: None
    _checks: dict[str, Check] = field(default_factory=dict)
    #: Slugs that are not listed, each with one of its keys. Projects may be created and deleted during a check.
    _unlisted: dict[str, str] = field(default_factory=dict)
    _relisted: list[Project] = field(default_factory=list)

    async def findings(self) -> AsyncIterator[Located]:
        """Every difference, confirmed."""
        misplaced: dict[Located, None] = {}  # a session that is listed as well comes twice
        async for slug, finding in self._all_findings():
            if finding.kind == "misplaced":
                misplaced[slug, finding] = None
            else:
                yield slug, finding
        moved_slugs, unmovable = set(), set()
        for slug, finding in misplaced:
            is_moved = self.repair and await self._relocate(slug, finding)
            located = slug, replace(finding, repairable=is_moved)
            moved_slugs |= {slug} if is_moved else set()
            unmovable |= set() if is_moved else {located}
            yield located
        incomplete = self._relisted + [project for project in self.projects if project.slug in moved_slugs]
        if incomplete:
            # A relocated session is not listed or indexed yet, and its old partition still has its members.
            async for located in StoreCheck(self.redis, incomplete, self.layout, whole=False, repair=self.repair).findings():
                if located not in unmovable:
                    yield located

    async def _relocate(self, slug: str, finding: Finding) -> bool:
        number = int(finding.term.removeprefix(f"scc:{{{slug}.").removesuffix("}:"))
        source = Partition(slug, number, self.layout.block_size)
        target = Partition(slug, partition_number(finding.id, self.layout.partitions))
        return await relocate(self.redis, source, self._checks[target.prefix].partition, finding.id)

    async def _all_findings(self) -> AsyncIterator[Located]:
        """Every difference except those of projects that were listed again or got a session back."""
        async for located in self._check_projects():
            yield located
        async for names in admin.scan(self.redis, self._pattern(), self.progress):
            async for located in self._check_names(names):
                yield located
        async for located in self._check_unlisted():
            yield located
        for check in self._checks.values():
            async for finding in check.finish():
                yield check.partition.slug, finding

    def _pattern(self) -> str:
        """The MATCH of SCAN; with several projects `_check_other` ignores the others."""
        if self.whole or len(self.projects) != 1:
            return "scc:*"
        return f"scc:{{{admin.escape_glob(self.projects[0].slug)}[.}}]*"

    async def _check_projects(self) -> AsyncIterator[Located]:
        for project in self.projects:
            count = self.layout.partitions
            for partition in all_partitions(project.slug, Owner(project.id, count), count, self.layout.block_size):
                self._checks[partition.prefix] = Check(
                    self.redis, partition, self.repair, self.progress, self.layout.partitions
                )
            async for finding in project_check.check_project(self.redis, project, repair=self.repair):
                yield project.slug, finding
            for number in range(self.layout.partitions):
                async for finding in self._checks[Partition(project.slug, number).prefix].listed_findings():
                    yield project.slug, finding

    async def _check_names(self, names: Iterable[bytes]) -> AsyncIterator[Located]:
        """Pass each key to the check that it belongs to."""
        by_prefix: dict[str, list[tuple[str, str]]] = defaultdict(list)
        digests = []
        for raw in names:
            name = raw.decode(errors="surrogateescape")
            match = _PARTITION.fullmatch(name)
            check = self._checks.get(name[: match.start(3)]) if match else None
            if check is not None and match is not None and self._is_misplaced(raw, match):
                yield check.partition.slug, Finding("misplaced", match[4], check.partition.prefix)
            elif check is not None and match is not None and self._is_of_partition(raw, match):
                by_prefix[check.partition.prefix].append((match[3], match[4] or ""))
            elif name.startswith(PREFLIGHT):
                continue  # of a server that is starting, or was killed
            elif (token := _STORE.fullmatch(name)) is not None:
                digests += [token[3]] if token[2] == "token" else []
                for finding in await self._check_kind(name, token[1] or token[2]):
                    yield "", finding
            else:
                async for located in self._check_other(raw, name):
                    yield located
        for prefix, members in by_prefix.items():
            check = self._checks[prefix]
            async for finding in check.verify_keys(members):
                yield check.partition.slug, finding
        async for finding in project_check.check_tokens(self.redis, digests, repair=self.repair):
            yield "", finding

    def _is_of_partition(self, raw: bytes, match: re.Match[str]) -> bool:
        """Whether a name with the form of a partition's is the name of one of its keys."""
        is_text = raw == match[0].encode(errors="replace")
        return (
            is_text
            and match[3] in PARTITION_KINDS
            and match[3] != "order"
            and (match[4] is not None) == (match[3] in _WITH_REST)
        )

    def _is_misplaced(self, raw: bytes, match: re.Match[str]) -> bool:
        """Whether a name is that of a session in a partition to which its id does not lead."""
        if match[3] != "session" or not self._is_of_partition(raw, match):
            return False
        return partition_number(match[4], self.layout.partitions) != int(match[2])

    async def _check_kind(self, name: str, kind: str) -> list[Finding]:
        if kind in ("store", "projects", "token"):
            return []  # `records` checks their fields.
        return await verify_type(self.redis, name, STORE_KINDS[kind], derived=True, repair=self.repair)

    async def _check_other(self, raw: bytes, name: str) -> AsyncIterator[Located]:
        """A key outside the partitions that are checked."""
        match = _PARTITION.fullmatch(name) or _PROJECT.fullmatch(name)
        slug = match[1] if match else ""
        if match is None or not await self._is_checked(slug, name):
            if match is None:
                yield "", Finding("unknown" if _is_utf8(raw) else "name", readable(raw), repairable=False)
            return
        if match.re is _PROJECT and match[2] in PROJECT_KINDS:
            return
        kind = match[3] if match.re is _PARTITION else ""
        if kind == "session" and _is_utf8(raw):
            yield slug, Finding("misplaced", match[4] or "", name[: match.start(3)])
        elif kind in DERIVED or kind in ("order", "state"):
            yield slug, Finding("derived" if _is_utf8(raw) else "name", readable(raw))
            if self.repair:
                await self.redis.call("UNLINK", raw, writes=True)
        else:
            yield slug, Finding("unknown" if _is_utf8(raw) else "name", readable(raw), repairable=False)

    async def _is_checked(self, slug: str, name: str) -> bool:
        """Whether the project `slug` is checked; an unlisted one is remembered for `_check_unlisted`."""
        if Partition(slug, 0).prefix in self._checks:
            return True
        if self.whole and slug not in self._unlisted:
            self._unlisted[slug] = name
        return False

    async def _check_unlisted(self) -> AsyncIterator[Located]:
        """Projects with keys that are not listed."""
        if self._unlisted:
            # A project is listed before it has keys; when it is deleted, its listing may go before its last keys.
            await asyncio.sleep(partition_check.CONFIRM_DELAY)
        for slug, name in self._unlisted.items():
            finding, project = await project_check.check_listing(self.redis, slug, name, repair=self.repair)
            if finding is not None:
                yield slug, finding
            if project is not None:
                self._relisted.append(project)


def _is_utf8(raw: bytes) -> bool:
    return raw == raw.decode(errors="replace").encode()
