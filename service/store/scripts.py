"""The Lua scripts: loading, includes, and typed functions whose arguments are checked against a script's header.

`lua/<name>.lua` is one atomic operation. Its header names each key and argument (`-- KEYS[1] session`, `-- ARGV[1] prefix`);
the last argument may stand for many. A line `-- include: name` inserts `lua/include/<name>.lua`, once.

A script is called through a function of its name, decorated with `script` (see `script_calls`). The function takes the script's
keys and arguments by name and returns them in order. The order is checked when the module is imported: the decorator calls the
function with the name of each parameter as its value, and compares the result with the header.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar, get_origin

from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import NoScriptError
from service.redis_client.multiplexer import Command

P = ParamSpec("P")
T = TypeVar("T")

Argument = str | bytes | int
#: The KEYS and the ARGV of one call.
KeysAndArguments = tuple[Sequence[str], Sequence[Argument]]

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


class Call(NamedTuple, Generic[T]):
    """One call of a script: its KEYS and ARGV, and the function that parses its reply."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]
    parse: Callable[[Any], T]

    @property
    def evalsha(self) -> Command:
        """The command that runs the script on a server that has cached it."""
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)

    @property
    def eval(self) -> Command:
        """The command that runs the script and caches it on the server."""
        return ("EVAL", self.script.source, len(self.keys), *self.keys, *self.arguments)

    async def run(self, redis: RedisClient, *, writes: bool = True) -> T:
        """Run the script. Raises as `RedisClient.call` does."""
        try:
            reply = await redis.call(*self.evalsha, writes=writes)
        except NoScriptError:
            reply = await redis.call(*self.eval, writes=writes)
        return self.parse(reply)


async def run_many(redis: RedisClient, calls: Sequence[Call[T]], *, writes: bool = True) -> list[T]:
    """Run all `calls` in one round trip; each is atomic, all of them together are not. Raises as `RedisClient.batch` does."""
    if len(calls) == 1:
        return [await calls[0].run(redis, writes=writes)]
    replies = await redis.batch([call.evalsha for call in calls], writes=writes)
    while missing := [position for position, reply in enumerate(replies) if isinstance(reply, NoScriptError)]:
        # The first EVAL caches the script on its server; other nodes of a cluster may still lack it.
        first, *others = (calls[position] for position in missing)
        commands = [first.eval, *(call.evalsha for call in others)]
        for position, reply in zip(missing, await redis.batch(commands, writes=writes), strict=True):
            replies[position] = reply
        del reply  # An error must not be held by a frame that it passes through.
    return [call.parse(reply) for call, reply in zip(calls, checked(replies), strict=True)]


class ScriptFunction(Generic[P, T]):
    """Makes calls of one script; its parameters are those of the decorated function."""

    def __init__(self, build: Callable[P, KeysAndArguments], parse: Callable[[Any], T]) -> None:
        self.script = load(build.__name__)
        self._build = build
        self._parse = parse
        keys, arguments = _named_arguments(build)
        if (keys, arguments) != (self.script.keys, self.script.arguments):
            raise TypeError(f"{build.__name__}() passes {keys} and {arguments}, but its Lua header names others")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """The call with these keys and arguments; `Call.run` or `run_many` sends it."""
        return Call(self.script, *self._build(*args, **kwargs), self._parse)


def script(parse: Callable[[Any], T]) -> Callable[[Callable[P, KeysAndArguments]], ScriptFunction[P, T]]:
    """Decorate a function named as a script, which returns the script's KEYS and ARGV; `parse` makes its result of a reply.

    Raises:
        TypeError: the function does not return its parameters in the order of the script's header.
    """
    return lambda build: ScriptFunction(build, parse)


def _named_arguments(build: Callable[..., KeysAndArguments]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What `build` returns if the value of each parameter is its own name."""
    parameters = inspect.signature(build, eval_str=True).parameters.values()
    keys, arguments = build(**{parameter.name: _marker(parameter) for parameter in parameters})
    return tuple(keys), tuple(arguments)


def _marker(parameter: inspect.Parameter) -> Any:  # noqa: ANN401 - as the parameter's annotation
    """A parameter's name in the form of its annotation: a NamedTuple of the names of its fields, a sequence, or the name."""
    kind = parameter.annotation
    if hasattr(kind, "_fields"):
        return kind(*kind._fields)
    return (parameter.name,) if get_origin(kind) is Sequence else parameter.name


def load(name: str) -> Script:
    """Load the script `name` with its includes.

    Raises:
        FileNotFoundError: the script or an include does not exist.
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


def _resolve(source: str, including: list[str], included: set[str]) -> str:
    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name in including:
            raise ValueError(f"Lua include {' → '.join([*including, name])} is a cycle")
        if name in included:
            return ""
        included.add(name)
        return _resolve(_read(f"include/{name}.lua"), [*including, name], included)

    return _INCLUDE.sub(replace, source)


def _names(kind: str, header: list[tuple[str, str, str]], name: str) -> tuple[str, ...]:
    numbered = [(int(number), parameter) for header_kind, number, parameter in header if header_kind == kind]
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise ValueError(f"{name}.lua does not number its {kind} from 1")
    return tuple(parameter for _, parameter in numbered)
