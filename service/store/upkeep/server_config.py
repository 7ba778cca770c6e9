"""Whether Redis is configured to keep its data: it must not evict keys, and it should survive a restart.

Sources: https://redis.io/docs/latest/develop/reference/eviction/ (maxmemory-policy), and the sections `memory` and
`persistence` of https://redis.io/docs/latest/commands/info/. `allkeys-*` evicts any key once maxmemory is reached, and no
command fails then. `volatile-*` evicts keys that expire; of this service these are rate limits and the lease of the sweep, and
both may go.
"""

import asyncio
import logging
import re
from collections.abc import Iterable
from random import uniform
from typing import Any, NamedTuple

from service.errors import StoreUnavailable
from service.redis_client.client import RedisClient
from service.redis_client.errors import ResponseError
from service.redis_client.topology import Target

#: Seconds between two checks of one worker, and their jitter.
INTERVAL = 5.0
SPREAD = 1.0

NOT_PERSISTENT = "Redis keeps no file (appendonly is no, and save is empty): a restart loses all data"
MAYBE_NOT_PERSISTENT = "Redis has no append-only file, and CONFIG GET is not allowed: a restart may lose data"
EVICTION = "the store may evict keys, which loses sessions; an operator can set maxmemory-policy to noeviction"
UNKNOWN = "INFO is not allowed: neither maxmemory-policy nor persistence of Redis can be checked"

_EVICTS_ANY = re.compile(rb"^maxmemory_policy:(allkeys-[\w-]+)", re.MULTILINE)
_APPENDS = re.compile(rb"^aof_enabled:1", re.MULTILINE)

logger = logging.getLogger("service")


class ServerConfig(NamedTuple):
    """What the masters' configuration means for the store.

    `evicts` is a policy that evicts any key, empty where no master has one. `warnings` are sentences for the operator.
    """

    evicts: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def is_unknown(self) -> bool:
        """Whether Redis does not allow INFO."""
        return UNKNOWN in self.warnings

    @property
    def eviction_problem(self) -> str:
        """A sentence that names the policy and what to do."""
        return f"Redis has maxmemory-policy {self.evicts} and may evict any key, which loses sessions; set it to noeviction"


async def read(redis: RedisClient) -> ServerConfig:
    """The configuration of every master.

    Raises:
        StoreUnavailable: one cannot be reached now.
    """
    return _merge(await asyncio.gather(*(_read_master(redis, master) for master in await redis.masters())))


def _merge(configs: Iterable[ServerConfig]) -> ServerConfig:
    evicts = "", *(config.evicts for config in configs)
    warnings = dict.fromkeys(warning for config in configs for warning in config.warnings)
    return ServerConfig(max(evicts), tuple(warnings))


async def _read_master(redis: RedisClient, master: Target) -> ServerConfig:
    memory = await _call_or_none(redis, master, "INFO", "memory")
    persistence = await _call_or_none(redis, master, "INFO", "persistence")
    if memory is None or persistence is None:
        return ServerConfig(warnings=(UNKNOWN,))
    policy = _EVICTS_ANY.search(memory)
    evicts = "" if policy is None else policy[1].decode()
    if _APPENDS.search(persistence):
        return ServerConfig(evicts)
    save = await _call_or_none(redis, master, "CONFIG", "GET", "save")
    if save is None:
        return ServerConfig(evicts, (MAYBE_NOT_PERSISTENT,))
    return ServerConfig(evicts, (NOT_PERSISTENT,) if save == [b"save", b""] else ())


async def _call_or_none(redis: RedisClient, master: Target, *command: str) -> Any:  # noqa: ANN401 - Redis replies differ
    """The reply to `command`; None where it is not allowed.

    Raises:
        StoreUnavailable: Redis cannot be reached now.
    """
    try:
        return await redis.call(*command, near=master)
    except ResponseError:
        return None
    except StoreUnavailable as error:
        if error.may_pass:
            raise
        return None


class ConfigWatch:
    """One worker's copy of the configuration, read again and again: it may change while the server runs."""

    def __init__(self, redis: RedisClient) -> None:
        self._redis = redis
        self._config = ServerConfig()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the operator."""
        return self._config.warnings

    def require_no_eviction(self) -> None:
        """Raise StoreUnavailable where Redis may evict any key."""
        if self._config.evicts:
            raise StoreUnavailable(EVICTION, diagnosis=self._config.eviction_problem)

    async def run(self) -> None:
        """Read the configuration about once in `INTERVAL`, until cancelled or until Redis does not allow INFO."""
        while not self._config.is_unknown:
            try:
                self._update(await read(self._redis))
            except StoreUnavailable:
                pass  # requests and /ready report it
            except Exception as error:
                logger.warning("the configuration of Redis cannot be checked: %s", type(error).__name__)
            await asyncio.sleep(INTERVAL + uniform(-SPREAD, SPREAD))  # noqa: S311 - no secret

    def _update(self, config: ServerConfig) -> None:
        if config.evicts and config.evicts != self._config.evicts:
            logger.error("%s", config.eviction_problem)
        self._config = config
