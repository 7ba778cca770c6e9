"""The Lua scripts: loading, includes, and the signature that a script's header declares.

`lua/<name>.lua` is one atomic operation. Its header names each key and argument (`-- KEYS[1] session`, `-- ARGV[1] prefix`);
the last argument may stand for many. A line `-- include: name` pulls in `lua/include/<name>.lua`, once.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import NoScriptError
from service.redis_client.multiplexer import Command

_INCLUDE = re.compile(r"^-- include: (\w+)\n", re.MULTILINE)
_PARAMETER = re.compile(r"^-- (KEYS|ARGV)\[(\d+)\] (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One atomic operation: its source with all includes, its SHA-1, and the names of its keys and arguments."""

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    arguments: tuple[str, ...]

    def command(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
        """The command that runs this script where Redis knows it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def loading(self, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Command:
        """The command that runs this script, and makes it known to the server that runs it."""
        return ("EVAL", self.source, len(keys), *keys, *arguments)

    async def run(
        self, redis: RedisClient, keys: Sequence[str], arguments: Sequence[str | bytes | int], *, writes: bool = True
    ) -> Any:  # noqa: ANN401 - each script has its own reply
        """Run the script. Raises as `RedisClient.call` does."""
        try:
            return await redis.call(*self.command(keys, arguments), writes=writes)
        except NoScriptError:
            return await redis.call(*self.loading(keys, arguments), writes=writes)

    async def run_many(
        self, redis: RedisClient, calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]], *, writes: bool = True
    ) -> list[Any]:
        """Run the script once a call, in one round trip; each run is atomic, all of them together are not."""
        replies = await redis.batch([self.command(*call) for call in calls], writes=writes)
        while missing := [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]:
            # The first makes it known to its server; in a cluster others may lack it still.
            first, *others = (calls[place] for place in missing)
            again = [self.loading(*first), *(self.command(*call) for call in others)]
            for place, reply in zip(missing, await redis.batch(again, writes=writes), strict=True):
                replies[place] = reply
        return checked(replies)


def load(name: str) -> Script:
    """Load the script `name` with its includes.

    Raises:
        FileNotFoundError: it or an include is not there.
        ValueError: an include includes itself, or the header does not number its parameters from 1.
    """
    source = _resolve(_read(f"{name}.lua"), [], set())
    header = _PARAMETER.findall(source)
    return Script(
        name=name,
        source=source,
        sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
        keys=_names("KEYS", header, name),
        arguments=_names("ARGV", header, name),
    )


def _read(path: str) -> str:
    return resources.files("service.store").joinpath("lua", path).read_text(encoding="utf-8")


def _resolve(source: str, including: list[str], done: set[str]) -> str:
    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name in including:
            raise ValueError(f"Lua include {' → '.join([*including, name])} is a circle")
        if name in done:
            return ""
        done.add(name)
        return _resolve(_read(f"include/{name}.lua"), [*including, name], done)

    return _INCLUDE.sub(replaced, source)


def _names(kind: str, header: list[tuple[str, str, str]], script: str) -> tuple[str, ...]:
    found = [(int(number), name) for which, number, name in header if which == kind]
    if [number for number, _ in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"{script}.lua does not number its {kind} from 1")
    return tuple(name for _, name in found)
