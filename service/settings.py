"""The one settings object: read once from flags and environment, frozen, validated before anything starts.

Every field is a flag (`--redis-url`) and an environment variable (`SCC_REDIS_URL`); a flag wins. `help` is the text of
`--help`; OPERATIONS.md has a table. An empty variable is an unset one, as `${SCC_HOST}` of a compose file gives it. An empty
flag is refused, unless empty is a value of the setting (`--redis-url ''`).
"""

import os
import re
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from service.configs.limits import Limits
from service.errors import StartupError
from service.process.memory import MIN_MEMORY, default_max_memory

FSYNC_POLICIES = ("always", "everysec", "no")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

#: The settings that every command on the Redis of a server takes as flags; the others come from the environment.
CONNECTION = ("redis_url", "data_dir", "command_timeout")
#: They would stand in every process listing, so they have no flags.
SECRETS = ("root_token", "key_secret")
#: Paths are bytes, and need not be UTF-8.
PATHS = ("data_dir", "redis_server")
#: Fewer characters than this are worth a warning: such a secret can be guessed.
SHORT_SECRET = 16

#: What fits into `Authorization: Bearer sk-ac-…`: 256 characters are the longest key that is looked up.
_ROOT_TOKEN = re.compile(r"[!-~]{0,250}")
#: Kubernetes sets SCC_PORT to an address in every pod beside a service called scc.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Limits):
    """All that can be set, the limits included. Times are seconds, sizes bytes."""

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(default=8029, metadata={"help": "port to listen on; 0 takes a free one"})
    workers: int = field(default_factory=_cores, metadata={"help": "worker processes; one a core unless set"})
    redis_url: str = field(
        default="",
        metadata={"help": "Redis to use: redis://, rediss://, unix://, redis+cluster://, redis+sentinel://; empty: embedded"},
    )
    data_dir: Path = field(
        default=Path(".data"), metadata={"help": "directory of the embedded Redis, the made-up key and the key secret"}
    )
    fsync: str = field(default="everysec", metadata={"help": "when the embedded Redis syncs its file: always, everysec or no"})
    max_memory: int = field(
        default_factory=default_max_memory,
        metadata={"help": "bytes of data in the embedded Redis, beyond it 503; 0: no limit; two fifths of memory unless set"},
    )
    redis_server: str = field(
        default="",
        metadata={
            "help": "redis-server or valkey-server of the embedded Redis, 6.2 or newer; empty: PATH's, else the bundled one"
        },
    )
    root_token: str = field(
        default="", metadata={"help": "xyz makes sk-ac-xyz the key of project default; empty: made up and kept"}
    )
    key_secret: str = field(
        default="", metadata={"help": "secret that keys are hashed with; the same for all servers of one Redis"}
    )
    replace_root_key: bool = field(
        default=False, metadata={"help": "revoke the root key of the store if root_token is another one; else refuse to start"}
    )
    partitions: int = field(
        default=1, metadata={"help": "partitions of each project's sessions; fixed when a store is first used"}
    )
    min_replicas: int = field(
        default=0, metadata={"help": "replicas that must have a write before it is answered; 0 waits for none"}
    )
    start_timeout: float = field(
        default=30.0, metadata={"help": "longest wait at the start for a Redis that is not ready yet, in seconds"}
    )
    command_timeout: float = field(default=1.0, metadata={"help": "longest wait for Redis, in seconds"})
    shutdown_timeout: float = field(
        default=10.0, metadata={"help": "longest wait for requests in flight at the end, in seconds"}
    )
    client_timeout: float = field(
        default=30.0, metadata={"help": "longest wait for a client in the middle of a request or an answer, in seconds"}
    )
    max_connections: int = field(
        default=4096, metadata={"help": "most connections of a worker; beyond it the one that was silent longest is closed"}
    )
    max_buffered_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={"help": "most bytes of requests and answers that a worker keeps for clients; then the slowest is cut off"},
    )
    max_in_flight: int = field(default=512, metadata={"help": "most requests that a worker has in hand; beyond it 503"})
    rate_limit: float = field(
        default=0.0, metadata={"help": "requests a second with one key, over all servers of one Redis; 0: no limit"}
    )
    rate_burst: int = field(
        default=0, metadata={"help": "requests at once with one key, with a rate limit; 0: as many as in one second"}
    )
    access_log: bool = field(default=False, metadata={"help": "write a line a request to standard error"})

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            StartupError: a value is out of its range; the message names the setting.
        """
        _require(_ROOT_TOKEN.fullmatch(self.root_token), "root_token", "at most 250 printable ASCII characters without spaces")
        _require(0 <= self.port <= 65535, "port", "0 to 65535")
        _require(1 <= self.workers <= 256, "workers", "1 to 256")
        _require(self.fsync in FSYNC_POLICIES, "fsync", ", ".join(FSYNC_POLICIES))
        _require(self.max_memory == 0 or self.max_memory >= MIN_MEMORY, "max_memory", f"0, or {MIN_MEMORY:,} or more")
        _require(1 <= self.partitions <= 1024, "partitions", "1 to 1024")
        _require(0 <= self.min_replicas <= 100, "min_replicas", "0 to 100")
        _require(0 < self.command_timeout < inf, "command_timeout", "more than 0")
        _require(0 <= self.start_timeout < inf, "start_timeout", "0 or more")
        _require(0 <= self.shutdown_timeout < inf, "shutdown_timeout", "0 or more")
        _require(0 < self.client_timeout < inf, "client_timeout", "more than 0")
        _require(self.max_connections >= 1, "max_connections", "1 or more")
        _require(self.max_buffered_bytes >= 1024 * 1024, "max_buffered_bytes", "1,048,576 or more")
        _require(self.max_in_flight >= 1, "max_in_flight", "1 or more")
        _require(self.rate_limit == 0 or 0.001 <= self.rate_limit <= 100_000, "rate_limit", "0, or 0.001 to 100,000")
        _require(0 <= self.rate_burst <= 1_000_000, "rate_burst", "0 to 1,000,000")
        # A header line has 8,190 bytes; aiohttp tells it from a request line by the limit that was passed.
        _require(self.max_line_bytes >= 8192, "max_line_bytes", "8,192 or more")
        _require(self.max_head_bytes >= 8192, "max_head_bytes", "8,192 or more")
        # What nests is walked by recursion, two frames a level.
        _require(self.max_nesting <= 256, "max_nesting", "1 to 256")
        for limit in fields(Limits):
            least = 0 if limit.default == 0 else 1
            _require(getattr(self, limit.name) >= least, limit.name, f"{least} or more")


def _require(holds: object, name: str, accepted: str) -> None:
    if not holds:
        raise StartupError(f"setting {name} must be {accepted}")


def decoded(word: str) -> str:
    """A word of the command line or the environment as text, whatever the locale.

    Python leaves bytes that are not in the encoding of the locale as surrogates: in C and POSIX, all of UTF-8 above 127.

    Raises:
        UnicodeDecodeError: those bytes are not UTF-8 either.
    """
    if any("\ud800" <= character <= "\udfff" for character in word):
        return os.fsencode(word).decode()
    return word


def variable(name: str) -> str:
    """Name of the environment variable of setting `name`."""
    return f"SCC_{name.upper()}"


def flag(name: str) -> str:
    """Name of the command-line flag of setting `name`."""
    return f"--{name.replace('_', '-')}"


def add_flags(parser: ArgumentParser, names: Collection[str] = ()) -> None:
    """Add a flag for each setting in `names` to `parser`, for every setting but the secrets if `names` is empty."""
    for item in fields(Settings):
        if item.name in names or (not names and item.name not in SECRETS):
            text = f"{item.metadata['help']} [{variable(item.name)}]"
            # A flag of a Boolean alone means true.
            value: dict[str, Any] = {"nargs": "?", "const": "true"} if item.type is bool else {}
            # Without a default, so that a flag before an action is not overwritten by its absence after it.
            parser.add_argument(flag(item.name), dest=item.name, metavar="VALUE", help=text, default=SUPPRESS, **value)


def load(flags: Namespace | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        StartupError: a value cannot be read or is out of range.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for item in fields(Settings):
        text = getattr(flags, item.name, None)
        if text is None:
            text = _from_environment(item.name, environment) or None
        elif not text and item.default != "":
            raise StartupError(f"{flag(item.name)} must not be empty; leave it out for the default")
        if text is not None:
            values[item.name] = _convert(item.name, item.type, text)
    return Settings(**values)


def _from_environment(name: str, environment: Mapping[str, str]) -> str:
    """Text of the variable of setting `name`, empty where it says nothing."""
    text = environment.get(variable(name), "")
    if _is_service_link(name, text):
        return ""
    # White space at the ends of a key secret is a part of it: without, it would not open the stores that were made with it.
    return text if name in ("key_secret", *PATHS) else text.strip()


def _is_service_link(name: str, text: str) -> bool:
    return name == "port" and _SERVICE_LINK.match(text) is not None


def warnings(settings: Settings, environment: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each variable that is ignored or unwise, with its name and without its value."""
    environment = os.environ if environment is None else environment
    names = {variable(item.name) for item in fields(Settings)}
    lines = [
        f"{ascii(name)[1:-1]} is not a setting and is ignored"
        for name in sorted(environment)
        if name.startswith("SCC_") and name not in names
    ]
    if _is_service_link("port", environment.get(variable("port"), "")):
        lines.append(f"{variable('port')} is the address of a Kubernetes service, not a port, and is ignored")
    lines += [
        f"{variable(name)} is shorter than {SHORT_SECRET} characters and can be guessed"
        for name in SECRETS
        if len(getattr(settings, name)) > 0 and len(getattr(settings, name).strip()) < SHORT_SECRET
    ]
    if settings.key_secret != settings.key_secret.strip():
        lines.append(f"{variable('key_secret')} begins or ends with white space, which is part of the secret")
    return lines


def _convert(name: str, kind: object, text: str) -> object:
    if kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise StartupError(f"setting {name} must be true or false")
        return text.lower() in TRUE
    converters: dict[object, Any] = {str: str, int: int, float: float, Path: Path}
    try:
        return converters[kind](text if name in PATHS else decoded(text))
    except UnicodeDecodeError:
        raise StartupError(f"setting {name} is not UTF-8") from None
    except ValueError:
        raise StartupError(f"setting {name} cannot be read from {text!r}") from None
