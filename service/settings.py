"""The settings: read once from flags and environment variables, immutable, validated before anything starts.

Every field is a flag (`--redis-url`) and an environment variable (`SCC_REDIS_URL`); the flag wins. `help` is the text of
`--help`; OPERATIONS.md has a table. An empty variable counts as unset, because a compose file passes an unset `${SCC_HOST}`
that way. An empty flag is an error, unless empty is a value of the setting (`--redis-url ''`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from service.configs.limits import Limits
from service.errors import StartupError
from service.process.memory_limit import MIN_MEMORY, default_max_memory

#: Path prefix of every route that needs an API key.
API_PREFIX = "/api/v1"
FSYNC_POLICIES = ("always", "everysec", "no")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")

#: The settings that every command that connects to Redis takes as flags; the others come from the environment.
CONNECTION = ("redis_url", "data_dir", "command_timeout")
#: They have no flags: a process listing shows the command line.
SECRETS = ("root_token", "key_secret")
#: Paths are bytes, and need not be UTF-8.
PATHS = ("data_dir", "redis_server")
#: A secret with fewer characters can be guessed, and causes a warning.
SHORT_SECRET = 16

#: What follows `Authorization: Bearer sk-ac-`: the server looks up keys of at most 256 characters.
_ROOT_TOKEN = re.compile(r"[!-~]{0,250}")
#: Kubernetes sets SCC_PORT to an address in every pod of a namespace with a service called scc.
_SERVICE_LINK = re.compile(r"(tcp|udp|sctp)://")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Limits):
    """Every setting, the limits included. Times are in seconds, sizes in bytes."""

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: int = field(default=8029, metadata={"help": "port to listen on; 0 picks a free one"})
    workers: int = field(default_factory=_cores, metadata={"help": "worker processes; default: one for each core"})
    redis_url: str = field(
        default="",
        metadata={
            "help": "Redis to use: redis://, rediss://, unix://, redis+cluster://, redis+sentinel://; empty: the embedded Redis"
        },
    )
    data_dir: Path = field(
        default=Path(".data"), metadata={"help": "directory for the embedded Redis, the generated key and the key secret"}
    )
    fsync: str = field(
        default="everysec", metadata={"help": "when the embedded Redis syncs its file to disk: always, everysec or no"}
    )
    max_memory: int = field(
        default_factory=default_max_memory,
        metadata={
            "help": "most bytes of data in the embedded Redis; beyond it, 503; 0: no limit; default: two fifths of memory"
        },
    )
    redis_server: str = field(
        default="",
        metadata={
            "help": "redis-server or valkey-server, 6.2 or newer, for the embedded Redis; empty: PATH's, else the bundled one"
        },
    )
    root_token: str = field(
        default="", metadata={"help": "xyz makes sk-ac-xyz the key of project default; empty: generated and saved"}
    )
    key_secret: str = field(
        default="",
        metadata={"help": "secret for hashing keys; the same for all servers of one Redis; empty: generated and saved"},
    )
    replace_root_key: bool = field(
        default=False,
        metadata={"help": "if root_token differs from the store's root key, replace that key instead of refusing to start"},
    )
    partitions: int = field(
        default=1, metadata={"help": "partitions of each project's sessions; fixed when the store is created"}
    )
    min_replicas: int = field(
        default=0, metadata={"help": "replicas that must acknowledge a write before the response; 0 waits for none"}
    )
    start_timeout: float = field(default=30.0, metadata={"help": "how long to wait for Redis at startup, in seconds"})
    command_timeout: float = field(default=1.0, metadata={"help": "how long to wait for a reply from Redis, in seconds"})
    shutdown_timeout: float = field(
        default=10.0, metadata={"help": "how long to wait for requests in flight at shutdown, in seconds"}
    )
    client_timeout: float = field(
        default=30.0, metadata={"help": "how long to wait for a client to send a request or to read a response, in seconds"}
    )
    max_connections: int = field(
        default=4096, metadata={"help": "most connections of a worker; beyond it, the one idle longest is closed"}
    )
    max_buffered_bytes: int = field(
        default=64 * 1024 * 1024,
        metadata={
            "help": "most bytes of requests and responses that a worker buffers; beyond it, the slowest client is cut off"
        },
    )
    max_in_flight: int = field(default=512, metadata={"help": "most requests in flight in a worker; beyond it, 503"})
    rate_limit: float = field(
        default=0.0, metadata={"help": "requests a second for each key, across all servers of one Redis; 0: no limit"}
    )
    rate_burst: int = field(
        default=0, metadata={"help": "burst of requests that the rate limit allows each key; 0: as many as in one second"}
    )
    access_log: bool = field(default=False, metadata={"help": "log every request to standard error"})

    def __post_init__(self) -> None:
        """Check every value.

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
        # aiohttp limits a header line to 8,190 bytes, and the limit in its error is how a request line is distinguished.
        _require(self.max_line_bytes >= 8192, "max_line_bytes", "8,192 or more")
        _require(self.max_head_bytes >= 8192, "max_head_bytes", "8,192 or more")
        # Nested values are traversed recursively, two frames a level.
        _require(self.max_nesting <= 256, "max_nesting", "1 to 256")
        for limit in fields(Limits):
            minimum = 0 if limit.default == 0 else 1
            _require(getattr(self, limit.name) >= minimum, limit.name, f"{minimum} or more")


def _require(is_valid: object, name: str, valid: str) -> None:
    if not is_valid:
        raise StartupError(f"setting {name} must be {valid}")


def decoded(word: str) -> str:
    """An argument or environment variable as text, decoded as UTF-8 in every locale.

    Python turns bytes that the locale's encoding cannot decode into surrogates: in C and POSIX, all bytes above 127.

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


def load(flags: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        StartupError: a value cannot be read or is out of range.
    """
    flags = {} if flags is None else flags
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for item in fields(Settings):
        text = flags.get(item.name)
        if text is None:
            text = _from_environment(item.name, environment) or None
        elif not text and item.default != "":
            raise StartupError(f"{flag(item.name)} must not be empty; leave it out for the default")
        if text is not None:
            values[item.name] = _convert(item.name, item.type, text)
    return Settings(**values)


def _from_environment(name: str, environment: Mapping[str, str]) -> str:
    """Text of the variable of setting `name`; empty if it is unset or ignored."""
    text = environment.get(variable(name), "")
    if _is_service_link(name, text):
        return ""
    # White space around a key secret is part of it: existing stores were created with it.
    return text if name in ("key_secret", *PATHS) else text.strip()


def _is_service_link(name: str, text: str) -> bool:
    return name == "port" and _SERVICE_LINK.match(text) is not None


def warnings(settings: Settings, environment: Mapping[str, str] | None = None) -> list[str]:
    """One sentence for each variable that is ignored or unsafe, with its name and without its value."""
    environment = os.environ if environment is None else environment
    names = {variable(item.name) for item in fields(Settings)}
    lines = [
        f"{ascii(name)[1:-1]} is ignored: it is not a setting"
        for name in sorted(environment)
        if name.startswith("SCC_") and name not in names
    ]
    if _is_service_link("port", environment.get(variable("port"), "")):
        lines.append(f"{variable('port')} is ignored: it is the address of a Kubernetes service, not a port")
    lines += [
        f"{variable(name)} is shorter than {SHORT_SECRET} characters and can be guessed"
        for name in SECRETS
        if len(getattr(settings, name)) > 0 and len(getattr(settings, name).strip()) < SHORT_SECRET
    ]
    if settings.key_secret != settings.key_secret.strip():
        lines.append(f"{variable('key_secret')} starts or ends with white space, which is part of the secret")
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
        raise StartupError(f"setting {name} has an invalid value: {text!r}") from None
