"""The preflight: runs every command that the service sends, on keys that it then removes.

A missing right, or a command that was renamed or is too new for the server, must show at the start, not during a write.
"""

import re
from contextlib import suppress

from service.errors import StartupError, StoreFull, StoreUnavailable
from service.redis_client import replies
from service.redis_client.client import RedisClient
from service.redis_client.errors import NoScriptError, ResponseError
from service.redis_client.multiplexer import Command
from service.redis_client.replies import Cause
from service.store import keys, script_calls

#: The oldest Redis that has every command which the scripts use.
OLDEST = (6, 2)
OTHER_REFUSAL = Cause("Redis refuses commands that the service needs", may_pass=False)
_VERSION = re.compile(rb"^redis_version:(\d+)\.(\d+)", re.MULTILINE)


def _commands(prefix: str) -> list[Command]:
    """Every command that a worker sends outside of scripts, in an order in which each key has the right type or none."""
    hash_, set_, zset, text = (prefix + kind for kind in ("hash", "set", "zset", "string"))
    return [
        ("TIME",), ("HSET", hash_, "field", "1"),
        ("HSETNX", hash_, "field", "1"), ("HINCRBY", hash_, "number", 1), ("HSTRLEN", hash_, "field"),
        ("HGET", hash_, "field"), ("HMGET", hash_, "field", "number"), ("HGETALL", hash_), ("HSCAN", hash_, 0),
        ("HDEL", hash_, "field"),
        ("SADD", set_, 1), ("SMEMBERS", set_), ("SREM", set_, 1),
        ("ZSCORE", zset, "member"), ("ZRANGE", zset, 0, 0, "WITHSCORES"), ("ZRANGEBYSCORE", zset, "-inf", "+inf"),
        ("ZREVRANGEBYSCORE", zset, "+inf", "-inf"), ("ZREM", zset, "member"),
        ("SET", text, "", "PX", 1000, "NX"), ("PTTL", text), ("EXISTS", text), ("UNLINK", text),
        ("DEL", hash_, set_, zset, text),
    ]  # fmt: skip


async def preflight(redis: RedisClient) -> None:
    """Run every command and every script on every master.

    Raises:
        StartupError: a server is too old, or a right or a command is missing (the message names it).
        StoreUnavailable: Redis cannot be used for another reason.
    """
    for prefix in await redis.one_key_per_master(keys.preflight_prefix):
        await _check_version(redis, prefix)
        await _try_scripts(redis, prefix)
        await _try_commands(redis, prefix)


async def _check_version(redis: RedisClient, prefix: str) -> None:
    try:
        version = _VERSION.search(await redis.call("INFO", "server", near=prefix))
    except (ResponseError, StoreUnavailable) as error:
        if isinstance(error, StoreUnavailable) and error.may_pass:
            raise
        return  # INFO may be forbidden; the commands below show what is missing
    if version is not None and (int(version[1]), int(version[2])) < OLDEST:
        raise StartupError(f"Redis is {version[1].decode()}.{version[2].decode()}; 6.2 or newer is needed")


async def _try_scripts(redis: RedisClient, prefix: str) -> None:
    call = script_calls.preflight(
        hash_key=f"{prefix}hash", set_key=f"{prefix}set", zset_key=f"{prefix}zset", string_key=f"{prefix}string", prefix=prefix
    )
    # Scripts are run by EVALSHA, and by EVAL where the server does not know them yet: both are needed.
    with suppress(NoScriptError):
        await redis.call(*call.evalsha)
    reply = call.parse(await redis.call(*call.eval))
    refused: dict[str, Cause] = {}
    for command, text in reply:
        refused[command] = replies.refusal(text.decode(errors="replace")) or OTHER_REFUSAL
    _raise_for(refused, " in scripts")


async def _try_commands(redis: RedisClient, prefix: str) -> None:
    commands = _commands(prefix)
    refused: dict[str, Cause] = {}
    for command, outcome in zip(commands, await redis.batch(commands, near=prefix), strict=True):
        # A full store refuses only writes that need memory; the scripts have shown whether it accepts writes.
        if isinstance(outcome, StoreUnavailable) and not isinstance(outcome, StoreFull):
            refused[str(command[0])] = Cause(outcome.diagnosis, outcome.may_pass)
    _raise_for(refused)


def _raise_for(refused: dict[str, Cause], suffix: str = "") -> None:
    """Raise the error for the refused commands, by their names."""
    for cause in refused.values():
        if cause.may_pass:
            raise StoreUnavailable(diagnosis=cause.sentence)
    if refused:
        reason = next(iter(refused.values())).sentence.partition(": ")[0]  # without the name of a command
        raise StartupError(f"{reason}: {', '.join(refused)}{suffix}")
