"""The settings: immutable, and valid. `service.setting_sources` reads them.

Every field is a flag (`--redis-url`), an environment variable (`SCC_REDIS_URL`) and a key of the file of `--config`
(`redis_url`). Its type says which values are valid, `help` is the text of `--help`; OPERATIONS.md has a table.
"""

import os
import sys
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from service.configs.limits import Limits, NotNegative, Positive
from service.errors import StartupError
from service.process.memory_limit import MIN_MEMORY, default_max_memory

#: Path prefix of every route that needs an API key.
API_PREFIX = "/api/v1"
#: The settings that every command that connects to Redis takes as flags; the others come from the environment.
CONNECTION = ("redis_url", "data_dir", "command_timeout")
#: The admin port of a server that has none.
NO_PORT = -1
#: They have no flags: a process listing shows the command line.
SECRETS = ("root_token", "key_secret")
#: Paths are bytes, and need not be UTF-8.
PATHS = ("data_dir", "redis_server")
#: Infinity is not valid.
_MAX = sys.float_info.max

Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=_MAX, description="0 or more")]
PositiveSeconds: TypeAlias = Annotated[float, Meta(gt=0, le=_MAX, description="more than 0")]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535, description="0 to 65535")]
AdminPort: TypeAlias = Annotated[int, Meta(ge=NO_PORT, le=65535, description="0 to 65535, or -1 for none")]
FsyncPolicy: TypeAlias = Annotated[str, Meta(pattern=r"^(always|everysec|no)\Z", description="always, everysec, no")]
LogFormat: TypeAlias = Annotated[str, Meta(pattern=r"^(text|json)\Z", description="text, json")]
LogLevel: TypeAlias = Annotated[str, Meta(pattern=r"^(info|warning|error)\Z", description="info, warning, error")]
#: What follows `Authorization: Bearer sk-ac-`: the server looks up keys of at most 256 characters.
RootToken: TypeAlias = Annotated[
    str, Meta(pattern=r"^[!-~]{0,250}\Z", description="at most 250 printable ASCII characters without spaces")
]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(Limits):
    """Every setting, the limits included. Times are in seconds, sizes in bytes."""

    host: str = field(default="127.0.0.1", metadata={"help": "address to listen on"})
    port: Port = field(default=8029, metadata={"help": "port to listen on; 0 picks a free one"})
    admin_host: str = field(default="127.0.0.1", metadata={"help": "address to listen on for metrics and health checks"})
    admin_port: AdminPort = field(
        default=NO_PORT, metadata={"help": "port for /metrics, /health and /ready; 0 picks a free one; -1: none"}
    )
    workers: Annotated[int, Meta(ge=1, le=256)] = field(
        default_factory=_cores, metadata={"help": "worker processes; default: one for each core"}
    )
    redis_url: str = field(
        default="",
        metadata={
            "help": "Redis to use: redis://, rediss://, unix://, redis+cluster://, redis+sentinel://; empty: the embedded Redis"
        },
    )
    data_dir: Path = field(
        default=Path(".data"), metadata={"help": "directory for the embedded Redis, the generated key and the key secret"}
    )
    fsync: FsyncPolicy = field(
        default="everysec", metadata={"help": "when the embedded Redis syncs its file to disk: always, everysec or no"}
    )
    max_memory: NotNegative = field(
        default_factory=default_max_memory,
        metadata={
            "help": "most bytes of data in the embedded Redis; beyond it, 503; 0: no limit; default: two fifths of memory",
            "unless_zero": MIN_MEMORY,
        },
    )
    redis_server: str = field(
        default="",
        metadata={
            "help": "redis-server or valkey-server, 6.2 or newer, for the embedded Redis; empty: PATH's, else the bundled one"
        },
    )
    root_token: RootToken = field(
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
    partitions: Annotated[int, Meta(ge=1, le=1024)] = field(
        default=1, metadata={"help": "partitions of each project's sessions; fixed when the store is created"}
    )
    min_replicas: Annotated[int, Meta(ge=0, le=100)] = field(
        default=0, metadata={"help": "replicas that must acknowledge a write before the response; 0 waits for none"}
    )
    start_timeout: Seconds = field(default=30.0, metadata={"help": "how long to wait for Redis at startup, in seconds"})
    command_timeout: PositiveSeconds = field(
        default=1.0, metadata={"help": "how long to wait for a reply from Redis, in seconds"}
    )
    shutdown_timeout: Seconds = field(
        default=10.0, metadata={"help": "how long to wait for requests in flight at shutdown, in seconds"}
    )
    client_timeout: PositiveSeconds = field(
        default=30.0, metadata={"help": "how long to wait for a client to send a request or to read a response, in seconds"}
    )
    max_connections: Positive = field(
        default=4096, metadata={"help": "most connections of a worker; beyond it, the one idle longest is closed"}
    )
    max_buffered_bytes: Annotated[int, Meta(ge=1024 * 1024)] = field(
        default=64 * 1024 * 1024,
        metadata={
            "help": "most bytes of requests and responses that a worker buffers; beyond it, the slowest client is cut off"
        },
    )
    max_in_flight: Positive = field(default=512, metadata={"help": "most requests in flight in a worker; beyond it, 503"})
    rate_limit: Annotated[float, Meta(ge=0, le=100_000, description="0, or 0.001 to 100,000")] = field(
        default=0.0,
        metadata={
            "help": "requests a second for each key, across all servers of one Redis; 0: no limit",
            "unless_zero": 0.001,
        },
    )
    rate_burst: Annotated[int, Meta(ge=0, le=1_000_000)] = field(
        default=0, metadata={"help": "burst of requests that the rate limit allows each key; 0: as many as in one second"}
    )
    access_log: bool = field(default=False, metadata={"help": "log every request to standard error"})
    log_format: LogFormat = field(default="text", metadata={"help": "format of the log: text or json"})
    log_level: LogLevel = field(default="info", metadata={"help": "lowest level to log: info, warning or error"})
    otel: bool = field(
        default=False,
        metadata={"help": "export traces to OpenTelemetry, as the variables OTEL_* say; needs the extra otel"},
    )

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            StartupError: a value is not valid; the message names the setting.
        """
        for item in fields(self):
            converted(item, getattr(self, item.name))


def converted(item: "Field[Any]", value: object) -> Any:  # noqa: ANN401 - the setting's type
    """`value` as the value of a setting: an integer may stand for a float, text for a path.

    Raises:
        StartupError: it is not valid for this setting.
    """
    try:
        result = msgspec.convert(value, item.type, dec_hook=_path)
    except msgspec.ValidationError:
        raise StartupError(f"setting {item.name} must be {_expected(item, value)}") from None
    if result and "unless_zero" in item.metadata and result < item.metadata["unless_zero"]:
        raise StartupError(f"setting {item.name} must be {_range(item)}")
    return result


def _path(kind: type, value: object) -> Path:
    if kind is not Path or not isinstance(value, str | Path):
        raise TypeError
    return Path(value)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "text"}


def type_of(item: "Field[Any]") -> Any:  # noqa: ANN401 - a class
    """The type of a setting's values: int, float, bool, str or Path."""
    return getattr(item.type, "__origin__", item.type)


def type_words(item: "Field[Any]") -> str:
    """What the values of a setting are, for an error message."""
    return _WORDS[type_of(item)]


def _expected(item: "Field[Any]", value: object) -> str:
    """What `value`, which is not valid, should be."""
    has_type = type(value) is type_of(item) or (type(value) is int and type_of(item) is float)
    return _range(item) if has_type else type_words(item)


def _range(item: "Field[Any]") -> str:
    (meta,) = getattr(item.type, "__metadata__")  # noqa: B009 - of Annotated; typing does not declare it
    if meta.description:
        return str(meta.description)
    if "unless_zero" in item.metadata:
        return f"0, or {item.metadata['unless_zero']:,} or more"
    return f"{meta.ge:,} or more" if meta.le is None else f"{meta.ge:,} to {meta.le:,}"


def variable(name: str) -> str:
    """Name of the environment variable of setting `name`."""
    return f"SCC_{name.upper()}"


def flag(name: str) -> str:
    """Name of the command-line flag of setting `name`."""
    return f"--{name.replace('_', '-')}"
