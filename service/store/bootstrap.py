"""What must be in the store before the first request: its own record, the default project, and the root key."""

import asyncio

from redis.exceptions import RedisError

from service.errors import NotReplicated, StartupError, StoreUnavailable
from service.settings import Settings
from service.store import keys, layout
from service.store.connection import Link
from service.store.projects import KEY_PREFIX, Registry, digest

DEFAULT_PROJECT = "default"
ROOT_KEY = "root"


def prepare(settings: Settings) -> None:
    """Make the store ready for `settings`, whose redis_url, root_token and key_secret are set.

    Raises:
        StartupError: Redis cannot be reached, or the store was made with other settings.
    """
    asyncio.run(_prepare(settings))


async def _prepare(settings: Settings) -> None:
    link = Link.open(settings.redis_url, timeout=settings.command_timeout, min_replicas=settings.min_replicas)
    try:
        await check_store(link, settings)
        registry = Registry(link, settings.key_secret)
        project = await registry.ensure(DEFAULT_PROJECT)
        key = await registry.add_key(project, KEY_PREFIX + settings.root_token, name=ROOT_KEY)
        await registry.revoke_keys(project, name=ROOT_KEY, but=key)
    except NotReplicated as error:
        raise StartupError("fewer replicas than min_replicas confirm what is written at the address in redis_url") from error
    except StoreUnavailable as error:
        raise StartupError("Redis cannot be reached, or refuses to work, at the address in redis_url") from error
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
