"""`repartition`: move a store to another number of partitions, while no server is running on it."""

import asyncio
import sys
from dataclasses import replace

import click

from service.commands import _offline
from service.commands._parameters import takes_settings
from service.commands.check import check_projects
from service.errors import StartupError, StoreUnavailable
from service.redis_client.client import RedisClient
from service.settings import CONNECTION, Settings, flag
from service.store.projects import Registry
from service.store.upkeep.repartition import repartition


@click.command()
@click.argument("target", type=int, metavar="PARTITIONS", help="the new number of partitions of each project")
@takes_settings(CONNECTION)
def command(settings: Settings, target: int) -> int:
    """Move every project's sessions, or resume an interrupted move; then check all projects.

    The exit status is 1 if the check finds a difference, or if the number of sessions has changed.

    Raises:
        StartupError: a server is running on the store, or the move cannot start or finish now; the message says what to do.
    """
    # This validates the number as for a server.
    settings = replace(settings, partitions=target)
    with _offline.redis_of(settings) as url:
        return asyncio.run(_run(url, settings))


async def _run(url: str, settings: Settings) -> int:
    redis = _offline.open_client(url, settings)
    try:
        return await _move(redis, settings)
    except StoreUnavailable as error:
        raise StartupError("the store is not available; run this command again to resume") from error
    finally:
        await redis.close()


async def _move(redis: RedisClient, settings: Settings) -> int:
    target = settings.partitions
    moved = await repartition(redis, target, wait=_offline.wait(settings), bar=_offline.phase_bar)
    if moved is None:
        sys.stdout.write(f"the store's number of partitions is already {target}\n")
    else:
        start = f"start servers with {flag('partitions')} {target}"
        sys.stdout.write(f"{moved.sessions} sessions are in {target} partitions; {start}\n")
    status = await check_projects(redis, await Registry(redis, settings.key_secret).all())
    if moved is not None and moved.sessions != moved.sessions_before:
        sys.stdout.write(f"before the move, {moved.sessions_before} sessions were listed\n")
        return 1
    return status
