"""What the metrics say of Redis: whether it answers, and what the embedded one takes."""

import re
from typing import NamedTuple

from service.errors import StoreUnavailable
from service.process import redis_socket
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import keys

_MEMORY, _AOF = re.compile(rb"^used_memory:(\d+)", re.MULTILINE), re.compile(rb"^aof_current_size:(\d+)", re.MULTILINE)


class RedisState(NamedTuple):
    """Whether every master answers and writes are accepted; sizes of the embedded Redis, in bytes, None without one."""

    is_up: bool
    memory: int | None = None
    aof: int | None = None


async def redis_state(redis: RedisClient, settings: Settings) -> RedisState:
    """Ask Redis."""
    try:
        await redis.call_on_masters("PING")
        # A replica that took its master's place in DNS answers, but refuses writes.
        await redis.call("DEL", keys.READY)
        if settings.redis_url != redis_socket.url(settings.data_dir):
            return RedisState(is_up=True)
        info = await redis.call("INFO", near=0)
    except StoreUnavailable:
        return RedisState(is_up=False)
    return RedisState(is_up=True, memory=_number(_MEMORY, info), aof=_number(_AOF, info))


def _number(pattern: re.Pattern[bytes], info: bytes) -> int | None:
    match = pattern.search(info)
    return None if match is None else int(match[1])
