"""Prepares the store before the first request: its manifest, the default project, and the root key."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from service.errors import StartupError, StoreUnavailable
from service.redis_client import admin, diagnosis, replies, url
from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import RedisError, ResponseError
from service.settings import Settings, flag
from service.store import keys, manifest
from service.store.api_keys import KEY_PREFIX, digest
from service.store.projects import Registry
from service.store.record import Project
from service.store.upkeep import server_config
from service.store.upkeep.preflight import preflight

DEFAULT_PROJECT = "default"
ROOT_KEY = "root"

#: Characters of a keyed hash in the manifest: enough to compare, too few to guess a key from.
CHECK_LENGTH = 16

_OTHER_ROOT_KEY = "this store has another root key; set root_token to that key, or revoke it with --replace-root-key"

#: Seconds between two attempts, between two log lines, and between two calls of `give_up`.
RETRY_INTERVAL, LOG_INTERVAL, POLL_INTERVAL = 0.5, 5.0, 0.1

logger = logging.getLogger(__name__)


def prepare(settings: Settings, give_up: Callable[[], bool] = lambda: False) -> None:
    """Make the store ready for `settings`, whose redis_url, root_token and key_secret are set.

    Waits up to `start_timeout` seconds for a Redis that cannot be reached or is not ready yet. A refusal that waiting does not
    change (password, rights, TLS …) ends the wait. `give_up` is called about ten times a second; once it returns true, this
    returns with the work undone.

    Raises:
        StartupError: Redis cannot be used (the message says why), or the store was made with other settings.
    """
    asyncio.run(_prepare_or_give_up(settings, give_up))


async def _prepare_or_give_up(settings: Settings, give_up: Callable[[], bool]) -> None:
    work = asyncio.create_task(_wait_and_prepare(settings))
    while not work.done() and not give_up():
        await asyncio.wait([work], timeout=POLL_INTERVAL)
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
        return
    work.result()


async def _wait_and_prepare(settings: Settings) -> None:
    deadline = monotonic() + settings.start_timeout
    next_log = 0.0
    while True:
        try:
            await _prepare(settings)
        except StoreUnavailable as error:
            sentence = _sentence(error, settings)
            now = monotonic()
            if not error.may_pass or now >= deadline:
                raise StartupError(sentence) from error
            if now >= next_log:
                logger.warning("waiting up to %.0f s for Redis: %s", deadline - now, sentence)
                next_log = now + LOG_INTERVAL
            await asyncio.sleep(min(RETRY_INTERVAL, deadline - now))
        else:
            return


def _sentence(error: StoreUnavailable, settings: Settings) -> str:
    """Why Redis cannot be used, with what the URL adds to it."""
    address = url.parse(settings.redis_url)
    if address.tls and error.diagnosis == diagnosis.NO_CONNECTION.sentence:
        # A server without TLS takes the ClientHello for the beginning of a command, and waits for the rest.
        return f"{error.diagnosis}; if the server does not speak TLS, write redis:// instead of rediss://"
    if address.kind == "standalone" and error.diagnosis == replies.CLUSTER_DOWN.sentence:
        return f"{error.diagnosis}; redis_url points to one of its nodes; write redis+cluster:// instead of redis://"
    return str(error)


async def _prepare(settings: Settings) -> None:
    """Make the store ready, if Redis is.

    Raises:
        StoreUnavailable: it is not.
        StartupError: as `prepare`.
    """
    redis = RedisClient.open(settings.redis_url, timeout=settings.command_timeout, min_replicas=settings.min_replicas)
    try:
        await preflight(redis)
        await check_configuration(redis)
        await check_store(redis, settings)
        registry = Registry(redis, settings.key_secret)
        project = await registry.ensure(DEFAULT_PROJECT)
        # Earlier releases write states without an owner, also while this one starts.
        await registry.complete_states()
        await set_root_key(registry, project, KEY_PREFIX + settings.root_token, replace=settings.replace_root_key)
    except RedisError as error:
        raise StartupError(f"Redis refused a command: {error}") from error
    finally:
        await redis.close()


async def check_configuration(redis: RedisClient) -> None:
    """Log warnings about the configuration of Redis.

    Raises:
        StartupError: it may evict any key.
    """
    config = await server_config.read(redis)
    if config.evicts:
        raise StartupError(config.eviction_problem)
    for warning in config.warnings:
        logger.warning("%s", warning)


async def set_root_key(registry: Registry, project: Project, key: str, *, replace: bool) -> None:
    """Make `key` the root key of `project`; with `replace`, revoke any other root key.

    Raises:
        StartupError: the store has another root key, and `replace` is false.
    """
    hashed = digest(key, registry.secret)
    check = hashed[:CHECK_LENGTH].encode()
    if not replace and await registry.api_keys.digests(project, ROOT_KEY) - {hashed}:
        raise StartupError(_OTHER_ROOT_KEY)
    stored = await registry.redis.call("HGET", keys.STORE, "root_key_check")
    if stored != check and (replace or stored is None):
        # If several servers start on a new store together, the first decides. A full store takes no write.
        await registry.redis.call("HSET" if replace else "HSETNX", keys.STORE, "root_key_check", check, writes=True)
        stored = await registry.redis.call("HGET", keys.STORE, "root_key_check")
    if stored != check:
        raise StartupError(_OTHER_ROOT_KEY)
    await registry.api_keys.add(project, key, name=ROOT_KEY)
    await registry.api_keys.revoke(project, name=ROOT_KEY, but=key)


async def check_store(redis: RedisClient, settings: Settings) -> None:
    """Write the manifest of a new store, or compare that of an existing one with the settings.

    Raises:
        StartupError: it was created with another layout, number of partitions, block size or key secret, or a repartition is
            unfinished; or servers with another number of partitions still run on a store that was emptied.
    """
    is_new = not await manifest.exists(redis)
    if not is_new:
        await manifest.settled_partitions(redis)
    else:
        await _refuse_other_servers(redis, settings.partitions)
    expected = {
        "partitions": str(settings.partitions),
        "block_size": str(keys.BLOCK_SIZE),
        # Not a key's hash. It shows a wrong secret at the start; otherwise every key would get 401.
        "key_secret_check": digest("key secret check", settings.key_secret)[:CHECK_LENGTH],
    }
    fields = manifest.VERSIONS | expected
    replies = await redis.batch([("HSETNX", keys.STORE, name, value) for name, value in fields.items()], writes=True)
    if is_new:
        checked(replies)  # an existing store may be full, and has these fields
    # Another server may have written it meanwhile.
    await manifest.settled_partitions(redis)
    stored = await redis.call("HMGET", keys.STORE, *expected)
    for (name, value), actual in zip(expected.items(), stored, strict=True):
        if actual is None or actual.decode() == value:
            continue
        if name == "key_secret_check":
            raise StartupError(
                "key_secret is not the secret with which the keys in this store were hashed; set it to that one, or unset it if"
                " the file key-secret in the data directory has that one"
            )
        raise StartupError(f"this store was created with {name} {actual.decode()}, not {value}")


async def _refuse_other_servers(redis: RedisClient, partitions: int) -> None:
    """Refuse to start on an emptied store while servers with another number of partitions run on it.

    Raises:
        StartupError: there are such servers.
    """
    try:
        others = await admin.partition_counts_of_servers(redis) - {partitions}
    except (ResponseError, StoreUnavailable) as error:
        if isinstance(error, StoreUnavailable) and error.may_pass:
            raise
        # CLIENT LIST may be forbidden. Those servers then read the new manifest and answer 503.
        return
    if others:
        option = f"{flag('partitions')} {min(others)}"
        raise StartupError(
            f"this Redis was emptied while servers with {option} run on it; stop them first, or start with {option}"
        )
