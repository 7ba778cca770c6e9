"""Projects and their API keys. A key is shown once; Redis holds only its keyed hash."""

import hmac
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import uuid4

import orjson

from service.configs.document import Document
from service.configs.ttl import ttl_of
from service.errors import (
    BadRequest,
    ConfigsTooLarge,
    ProjectNotFound,
    StoreUnavailable,
    Unauthorized,
    Unreadable,
    WriteUncertain,
)
from service.redis_client.client import RedisClient, checked
from service.store import default_ttl, keys, manifest, ownership, scripts
from service.store.keys import Owner, all_partitions, is_text
from service.store.listing import Query, iter_matches
from service.store.sessions import Project, Sessions

PATCH_PROJECT = scripts.load("patch_project")

KEY_PREFIX = "sk-ac-"
#: How long a worker trusts what it knows of a key, in seconds; a revoked key must stop working everywhere within 5.
KEY_TTL = 4.0
#: Longest key that is looked up, in characters.
KEY_MAX = 256
#: Keys that a worker remembers at most.
KEYS_REMEMBERED = 10_000

_TTL_KEY = orjson.dumps(default_ttl.NAME)
_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def digest(key: str, secret: str) -> str:
    """The keyed hash (HMAC-SHA-256, hex) under which a key is known."""
    return hmac.digest(secret.encode(), key.encode(), "sha256").hex()


@dataclass(frozen=True)
class Registry:
    """All projects of a store. `secret` is what keys are hashed with."""

    redis: RedisClient
    secret: str

    async def create(self, slug: str) -> tuple[Project, str]:
        """Create a project; returns it and its first key.

        Raises:
            BadRequest: the name is taken, or not of `a-z`, `0-9` and `-`.
        """
        if not _SLUG.fullmatch(slug):
            raise BadRequest("a project's name is 1 to 63 of a-z, 0-9 and -, with no - at either end")
        project = await self.ensure(slug, new=True)
        return project, await self.add_key(project)

    async def ensure(self, slug: str, *, new: bool = False) -> Project:
        """The project `slug`, created if it is not there.

        Raises:
            BadRequest: it had to be `new` and is not.
            StartupError: the store is being moved to another number of partitions.
        """
        partitions = await manifest.settled_partitions(self.redis, needs_record=False)
        # Looked at first: a server must start on a store that is full and takes no more.
        is_there = not new and await self.redis.call("HGET", keys.PROJECTS, slug) is not None
        is_new = not is_there and await self.redis.call("HSETNX", keys.PROJECTS, slug, str(uuid4()), writes=True)
        if not is_new and new:
            raise BadRequest(f"there is a project {slug} already")
        project = await self.get(slug)
        created_at = int(time.time() * 1_000_000)
        await self.redis.batch(
            [
                ("HSETNX", keys.project_key(slug), "id", project.id),
                ("HSETNX", keys.project_key(slug), "created_at", created_at),
                ("HSETNX", keys.project_key(slug), "configs", "{}"),
            ],
            writes=True,
        )
        # A state that outlived an earlier project of that name names that one.
        write = ownership.record if is_new else ownership.complete
        await write(self.redis, all_partitions(slug, Owner(project.id, partitions), partitions))
        return project

    async def complete_states(self) -> None:
        """Let the state of every partition of every project name its owner: states written by earlier versions do not."""
        partitions = await manifest.settled_partitions(self.redis)
        for project in await self.all():
            await ownership.complete(self.redis, all_partitions(project.slug, Owner(project.id, partitions), partitions))

    async def get(self, slug: str) -> Project:
        """The project `slug`.

        Raises:
            ProjectNotFound: there is none.
        """
        project_id = await self.redis.call("HGET", keys.PROJECTS, slug)
        if project_id is None:
            raise ProjectNotFound(slug)
        return Project(slug, project_id.decode())

    async def all(self) -> list[Project]:
        """Every project, by name; a name that is not UTF-8 was written by hand, and is none."""
        flat = await self.redis.call("HGETALL", keys.PROJECTS)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        projects = (Project(slug.decode(), name.decode()) for slug, name in pairs if is_text(slug) and is_text(name))
        return sorted(projects, key=lambda each: each.slug)

    async def add_key(self, project: Project, key: str | None = None, *, name: str = "key") -> str:
        """Let `key`, or a new one, open `project`; returns the key."""
        key = key or KEY_PREFIX + secrets.token_urlsafe(32)
        known = digest(key, self.secret)
        if await self._has_key(project, known, name):
            return key
        # The set first: a token that no set names could not be revoked with its project.
        await self.redis.call("SADD", keys.tokens_key(project.slug), known, writes=True)
        await self.redis.call(
            "HSET", keys.token_key(known), "project", project.slug, "project_id", project.id, "name", name, writes=True
        )
        return key

    async def _has_key(self, project: Project, known: str, name: str) -> bool:
        """Whether the key whose hash is `known` is recorded as it should be; then nothing needs to be written."""
        record = await self.redis.call("HMGET", keys.token_key(known), "project", "project_id", "name")
        wanted = [project.slug.encode(), project.id.encode(), name.encode()]
        return record == wanted and known.encode() in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug))

    async def hashes(self, project: Project, name: str) -> set[str]:
        """The hashes of the keys of `project` that are called `name`."""
        named = set()
        for member in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug)):
            known = member.decode()
            if await self.redis.call("HGET", keys.token_key(known), "name") == name.encode():
                named.add(known)
        return named

    async def revoke_keys(self, project: Project, *, name: str | None = None, but: str | None = None) -> None:
        """Revoke all keys of `project`, or those called `name`, except the key `but`."""
        kept = digest(but, self.secret) if but else None
        for member in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug)):
            known = member.decode()
            record = await self.redis.call("HGET", keys.token_key(known), "name")
            if known != kept and (name is None or record == name.encode()):
                await self._revoke(project, known)

    async def _revoke(self, project: Project, known: str) -> None:
        """Revoke the key of `project` whose hash is `known`."""
        await self.redis.call("DEL", keys.token_key(known), writes=True)
        await self.redis.call("SREM", keys.tokens_key(project.slug), known, writes=True)

    async def rotate_key(self, project: Project, show: Callable[[str], None]) -> str:
        """Give `project` a new key, hand it to `show`, and revoke all others; returns the key.

        If `show` raises, nobody knows the new key: it is revoked, and the others stay.
        """
        key = await self.add_key(project)
        try:
            show(key)
        except Exception:
            await self._revoke(project, digest(key, self.secret))
            raise
        await self.revoke_keys(project, but=key)
        return key

    async def load(self, key: str) -> Project | None:
        """The project that `key` opens, if it opens one."""
        record = await self.redis.call("HMGET", keys.token_key(digest(key, self.secret)), "project", "project_id")
        return None if None in record else Project(record[0].decode(), record[1].decode())

    async def delete(self, sessions: Sessions) -> None:
        """Delete the project of `sessions`: its sessions, users and configs. Its keys must be revoked.

        From the first step on nobody writes to it. Its name is free after the last one; a deletion that was interrupted can be
        done again.

        Raises:
            ProjectNotFound: it is gone; another one may have its name.
        """
        slug = sessions.project.slug
        if await self.get(slug) != sessions.project:
            raise ProjectNotFound(slug)
        nobodys = Sessions(
            self.redis, Project(slug, ownership.DELETED), sessions.limits, sessions.partitions, sessions.block_size
        )
        await ownership.record(self.redis, nobodys.all_partitions)
        async for batch in iter_matches(nobodys, Query(), with_expired=True):
            await nobodys.delete_many([session.id for session in batch])
        # In one command: users are written by the project's record.
        own = (keys.project_key(slug), keys.users_key(slug), keys.expected_users_key(slug), keys.tokens_key(slug))
        states = [("UNLINK", partition.state) for partition in nobodys.all_partitions]
        checked(await self.redis.batch([("UNLINK", *own), *states], writes=True))
        await self.redis.call("HDEL", keys.PROJECTS, slug, writes=True)


Opened = TypeVar("Opened")


class KeyRing(Generic[Opened]):
    """What one worker knows of API keys: an answer of Redis holds for `KEY_TTL` seconds, a refusal is asked anew."""

    def __init__(self, registry: Registry, opened: Callable[[Project], Opened], partitions: int = 1) -> None:
        """`opened` makes what a request gets of the project that its key opens; made once a key, not once a request.

        `partitions` are those that the sessions are looked for in.
        """
        self._registry = registry
        self._partitions = partitions
        self._opened = opened
        self._known: dict[str, tuple[float, str, Opened, str]] = {}

    async def authenticate(self, authorization: str, *, anew: bool = False) -> Opened:
        """What the key in an Authorization header opens. With `anew`, Redis is asked whatever is known.

        Raises:
            Unauthorized: it opens nothing.
            StoreUnavailable: the store is empty, has been moved to another number of partitions, is being moved, or may only be
                used by newer releases.
        """
        known = self._known.get(authorization)
        # The comparison takes the same time wherever the texts differ; Redis is asked by the keyed hash alone.
        if not anew and known is not None and hmac.compare_digest(known[1], authorization) and time.monotonic() < known[0]:
            return known[2]
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.startswith(KEY_PREFIX) or len(key) > KEY_MAX or not key.isascii():
            raise Unauthorized
        asked = time.monotonic()
        project = await self._registry.load(key)
        # Asked as often as the key is: within KEY_TTL no worker works on a store that was emptied, that is being moved, or that
        # only newer releases may use. It comes before the refusal: in an emptied store every key is unknown.
        await manifest.confirm(self._registry.redis, self._partitions)
        if project is None:
            self._known.pop(authorization, None)
            raise Unauthorized
        if len(self._known) >= KEYS_REMEMBERED:
            self._known.clear()
        opened = self._opened(project)
        self._known[authorization] = (asked + KEY_TTL, authorization, opened, project.slug)
        return opened

    def project_of(self, authorization: str) -> str:
        """The name of the project that a key opened last, "" where it is not known. Asks nobody, and permits nothing."""
        known = self._known.get(authorization)
        return "" if known is None else known[3]


@dataclass(frozen=True)
class ProjectConfigs:
    """The own configs of the project of `sessions`: a JSON object in the stored form.

    Its member `session_ttl`, where it has one, is the lifetime in seconds of sessions that are created without another.
    """

    sessions: Sessions

    @property
    def _key(self) -> str:
        return keys.project_key(self.sessions.project.slug)

    async def get(self) -> bytes:
        """All of them."""
        stored: bytes | None = await self.sessions.redis.call("HGET", self._key, "configs")
        return stored or b"{}"

    async def patch(self, changes: Document) -> bytes:
        """Merge `changes` as `Sessions.patch` does; returns all of them. A new `session_ttl` holds everywhere from then on.

        Raises:
            BadRequest: `session_ttl` is no lifetime.
            ConfigsTooLarge: the result would be over a limit; nothing was changed.
            Unreadable: a hand has made the stored configs unreadable.
        """
        members = [part for member in changes.members for part in (member.key, b"" if member.is_null else member.value)]
        ttls = [ttl_of(orjson.loads(member.value), default_ttl.NAME) for member in changes.members if member.key == _TTL_KEY]
        if ttls:
            # The record does not know of partitions: none would learn of a change that is made while they are moved.
            await ownership.confirm(self.sessions.redis, self.sessions.all_partitions[0])
        limits = self.sessions.limits
        reply = await PATCH_PROJECT.run(
            self.sessions.redis,
            (self._key,),
            (self.sessions.project.id, limits.max_configs_bytes, limits.max_keys, *members),
        )
        match reply[0]:
            case b"ok":
                merged: bytes
                merged, revision = reply[1:]
                for ttl in ttls:
                    await self._tell(revision, ttl)
                return merged
            case b"too_large":
                raise ConfigsTooLarge(f"configs are larger than {limits.max_configs_bytes} bytes")
            case b"too_many_keys":
                raise ConfigsTooLarge(f"configs have more than {limits.max_keys} top-level keys")
            case _:
                raise Unreadable

    async def _tell(self, revision: int, ttl: int) -> None:
        try:
            await default_ttl.publish(self.sessions.redis, self.sessions.all_partitions, revision, ttl)
        except StoreUnavailable as error:
            # The configs are changed already.
            raise WriteUncertain from error
