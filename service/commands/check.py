"""`check`: compare the index of every project with the stored configs; with --repair, repair it."""

import asyncio
import sys
from collections.abc import Sequence

import click
from tqdm import tqdm

from service.commands import _store
from service.commands._parameters import TEXT, takes_settings
from service.process import data_dir
from service.redis_client import admin
from service.redis_client.client import RedisClient
from service.settings import CONNECTION, Settings
from service.store import manifest
from service.store.keys import Partition
from service.store.record import Project
from service.store.upkeep.check import StoreCheck
from service.store.verify import Finding

#: Partitions whose sessions are counted in one round trip.
COUNT_BATCH = 1000


@click.command()
@click.option("--repair", is_flag=True, help="repair the index from the stored configs where possible")
@click.option("--project", type=TEXT, metavar="NAME", help="check only this project")
@takes_settings(CONNECTION)
def command(settings: Settings, repair: bool, project: str | None) -> int:
    """Print one line for each difference, then the counts.

    The exit status is 1 if there is a difference; with --repair, if there is one that could not be repaired.
    """
    return asyncio.run(_check(data_dir.with_running_redis(settings), repair, project))


async def _check(settings: Settings, repair: bool, project: str | None) -> int:
    async with _store.registry(settings, writes=repair) as registry:
        projects = [await registry.get(project)] if project else await registry.all()
        return await check_projects(registry.redis, projects, whole=not project, repair=repair)


async def check_projects(redis: RedisClient, projects: Sequence[Project], *, whole: bool = True, repair: bool = False) -> int:
    """Check `projects`, print the differences and the counts, and return the exit status of `command`.

    With `whole`, they are all projects of the store.
    """
    stored = await manifest.read(redis, writes=repair)
    findings: list[Finding] = []
    total = await admin.key_count(redis) + await _session_count(redis, projects, stored)
    with tqdm(total=total, desc="check", unit=" keys", file=sys.stderr, disable=None, mininterval=0.2) as bar:
        check = StoreCheck(redis, projects, stored, whole, repair, bar.update)
        async for slug, finding in check.findings():
            findings.append(finding)
            bar.write(f"{slug}: {finding}" if slug else str(finding), file=sys.stdout)
    repaired = sum(repair and finding.repairable for finding in findings)
    sys.stdout.write(summary(len(projects), len(findings), repaired if repair else None) + "\n")
    return 1 if len(findings) > repaired else 0


def summary(projects: int, differences: int, repaired: int | None) -> str:
    """The last line of a check; `repaired` is None without --repair."""
    text = f"{projects} project{'' if projects == 1 else 's'} checked: "
    text += f"{differences or 'no'} difference{'' if differences == 1 else 's'}"
    return text if repaired is None or not differences else f"{text}, {repaired} repaired"


async def _session_count(redis: RedisClient, projects: Sequence[Project], stored: manifest.Layout) -> int:
    """How many sessions the readable lists contain; for the total of the progress bar."""
    partitions = [Partition(project.slug, number) for project in projects for number in range(stored.partitions)]
    total = 0
    for first in range(0, len(partitions), COUNT_BATCH):
        replies = await redis.batch([("ZCARD", each.sessions) for each in partitions[first : first + COUNT_BATCH]])
        total += sum(reply for reply in replies if isinstance(reply, int))
    return total
