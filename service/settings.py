"""The one settings object: read once from flags and environment, frozen, validated before anything starts.

Every field is a flag (`--redis-url`) and an environment variable (`SCC_REDIS_URL`); a flag wins. `help` stands in `--help` and
in the README's table.
"""

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from service.configs.limits import Limits
from service.errors import StartupError

FSYNC_POLICIES = ("always", "everysec", "no")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


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
    fsync: str = field(
        default="everysec", metadata={"help": "when the embedded Redis syncs its file: always, everysec or no"}
    )
    redis_server: str = field(
        default="", metadata={"help": "redis-server binary of the embedded Redis, 6.2 or newer; empty: the best one found"}
    )
    root_token: str = field(
        default="", metadata={"help": "xyz makes sk-ac-xyz the key of project default; empty: made up and kept"}
    )
    key_secret: str = field(
        default="", metadata={"help": "secret that keys are hashed with; the same for all servers of one Redis"}
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
        _require(0 <= self.port <= 65535, "port", "0 to 65535")
        _require(1 <= self.workers <= 256, "workers", "1 to 256")
        _require(self.fsync in FSYNC_POLICIES, "fsync", ", ".join(FSYNC_POLICIES))
        _require(1 <= self.partitions <= 1024, "partitions", "1 to 1024")
        _require(0 <= self.min_replicas <= 100, "min_replicas", "0 to 100")
        _require(0 < self.command_timeout < inf, "command_timeout", "more than 0")
        _require(0 <= self.start_timeout < inf, "start_timeout", "0 or more")
        _require(0 <= self.shutdown_timeout < inf, "shutdown_timeout", "0 or more")
        _require(0 < self.client_timeout < inf, "client_timeout", "more than 0")
        _require(self.max_connections >= 1, "max_connections", "1 or more")
        _require(self.max_in_flight >= 1, "max_in_flight", "1 or more")
        _require(self.rate_limit == 0 or 0.001 <= self.rate_limit <= 100_000, "rate_limit", "0, or 0.001 to 100,000")
        _require(0 <= self.rate_burst <= 1_000_000, "rate_burst", "0 to 1,000,000")
        # What nests is walked by recursion, two frames a level.
        _require(self.max_nesting <= 256, "max_nesting", "1 to 256")
        for limit in fields(Limits):
            _require(getattr(self, limit.name) >= 1, limit.name, "1 or more")


def _require(holds: bool, name: str, accepted: str) -> None:
    if not holds:
        raise StartupError(f"setting {name} must be {accepted}")


def variable(name: str) -> str:
    """Name of the environment variable of setting `name`."""
    return f"SCC_{name.upper()}"


def flag(name: str) -> str:
    """Name of the command-line flag of setting `name`."""
    return f"--{name.replace('_', '-')}"


def add_flags(parser: ArgumentParser) -> None:
    """Add a flag for every setting to `parser`."""
    for item in fields(Settings):
        shown = f"{item.metadata['help']} [{variable(item.name)}]"
        # The root token and the key secret would stand in every process listing.
        if item.name not in ("root_token", "key_secret"):
            parser.add_argument(flag(item.name), dest=item.name, metavar="VALUE", help=shown)


def load(flags: Namespace | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        StartupError: a value cannot be read or is out of range.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for item in fields(Settings):
        given = getattr(flags, item.name, None)
        text = environment.get(variable(item.name)) if given is None else given
        if text is not None:
            values[item.name] = _convert(item.name, item.type, text)
    return Settings(**values)


def _convert(name: str, kind: object, text: str) -> object:
    if kind is bool:
        if text.lower() not in TRUE + FALSE:
            raise StartupError(f"setting {name} must be true or false")
        return text.lower() in TRUE
    converters: dict[object, Any] = {str: str, int: int, float: float, Path: Path}
    try:
        return converters[kind](text)
    except ValueError:
        raise StartupError(f"setting {name} cannot be read from {text!r}") from None
