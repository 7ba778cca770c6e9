"""What must be in the store before the first request: its own record, the default project, and the root key."""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from redis.exceptions import RedisError

from service.errors import StartupError, StoreUnavailable
from service.settings import Settings
from service.store import causes, keys, layout, replies, urls
from service.store.connection import Link
from service.store.preflight import preflight
from service.store.projects import KEY_PREFIX, Registry, digest

DEFAULT_PROJECT = "default"
ROOT_KEY = "root"

#: Seconds between two attempts at the start, between two lines that say why it waits, and between two looks at `give_up`.
RETRY_INTERVAL, LINE_INTERVAL, POLL = 0.5, 5.0, 0.1

logger = logging.getLogger(__name__)


def prepare(settings: Settings, give_up: Callable[[], bool] = lambda: False) -> None:
    """Make the store ready for `settings`, whose redis_url, root_token and key_secret are set.

    A Redis that cannot be reached or is not ready yet is waited for, `start_timeout` seconds at most; a refusal that waiting
    does not change (password, rights, TLS …) ends the wait. `give_up` is called about ten times a second; once it returns
    true, this returns without having done its work.

    Raises:
        StartupError: Redis cannot be used, and the message tells why; or the store was made with other settings.
    """
    asyncio.run(_prepare_or_give_up(settings, give_up))


async def _prepare_or_give_up(settings: Settings, give_up: Callable[[], bool]) -> None:
    work = asyncio.create_task(_wait_and_prepare(settings))
    while not work.done() and not give_up():
        await asyncio.wait([work], timeout=POLL)
    if not work.done():
        work.cancel()
        await asyncio.wait([work])
        return
    work.result()


async def _wait_and_prepare(settings: Settings) -> None:
    deadline = monotonic() + settings.start_timeout
    next_line = 0.0
    while True:
        try:
            await _prepare(settings)
        except StoreUnavailable as error:
            sentence = _sentence(error, settings)
            now = monotonic()
            if not error.may_pass or now >= deadline:
                raise StartupError(sentence) from error
            if now >= next_line:
                logger.warning("waiting for Redis, %.0f s at most: %s", deadline - now, sentence)
                next_line = now + LINE_INTERVAL
            await asyncio.sleep(min(RETRY_INTERVAL, deadline - now))
        else:
            return


def _sentence(error: StoreUnavailable, settings: Settings) -> str:
    """Why Redis cannot be used, with what the URL adds to it."""
    address = urls.parse(settings.redis_url)
    if address.tls and error.diagnosis == causes.NO_CONNECTION.sentence:
        # A server without TLS takes the greeting for the beginning of a command, and waits for the rest.
        return f"{error.diagnosis}; if the server does not speak TLS, write redis:// in place of rediss://"
    if address.kind == "one" and error.diagnosis == replies.CLUSTER_DOWN.sentence:
        return f"{error.diagnosis}; redis_url leads to one of its nodes, write redis+cluster:// in place of redis://"
    return str(error)


async def _prepare(settings: Settings) -> None:
    """Make the store ready, if Redis is.

    Raises:
        StoreUnavailable: it is not.
        StartupError: as `prepare`.
    """
    link = Link.open(settings.redis_url, timeout=settings.command_timeout, min_replicas=settings.min_replicas)
    try:
        await preflight(link)
        await check_store(link, settings)
        registry = Registry(link, settings.key_secret)
        project = await registry.ensure(DEFAULT_PROJECT)
        key = await registry.add_key(project, KEY_PREFIX + settings.root_token, name=ROOT_KEY)
        await registry.revoke_keys(project, name=ROOT_KEY, but=key)
    except RedisError as error:
        raise StartupError(f"Redis refused: {error}") from error
    finally:
        await link.close()


async def check_store(link: Link, settings: Settings) -> None:
    """Record in a new store how it is laid out; hold an old one to it.

    Raises:
        StartupError: it was made with another layout, number of partitions, block size or key secret, or is being moved.
    """
    await layout.partitions_at_rest(link)
    here = {
        "layout": str(layout.LAYOUT),
        "partitions": str(settings.partitions),
        "block_size": str(keys.BLOCK_SIZE),
        # Not a key's hash: it tells a wrong secret at the start, where it would else be a 401 for every key.
        "key_secret_check": digest("key secret check", settings.key_secret)[:16],
    }
    await link.batch([("HSETNX", keys.STORE, name, value) for name, value in here.items()], writes=True)
    stored = await link.call("HMGET", keys.STORE, *here)
    for (name, value), found in zip(here.items(), stored, strict=True):
        if found is None or found.decode() == value:
            continue
        if name == "key_secret_check":
            raise StartupError("setting key_secret is not the secret that the keys in this store were hashed with")
        raise StartupError(f"this store was made with {name} {found.decode()}, not {value}")
