"""`check`: hold the index of every project against the stored configs, and mend it where asked."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from tqdm import tqdm

from service.commands import _store
from service.settings import Settings
from service.store import nodes
from service.store.connection import Link
from service.store.integrity import BEYOND_REPAIR, Check, Finding, check_all
from service.store.sessions import Project


def add_arguments(parser: ArgumentParser) -> None:
    """Add what `check` takes."""
    parser.add_argument("--repair", action="store_true", help="mend what is found")
    parser.add_argument("--project", metavar="NAME", help="check this project only")


def run(arguments: Namespace, settings: Settings) -> int:
    """Print every difference, a line each, then the counts.

    The exit status is 1 if there is a difference, or with --repair one that could not be mended.
    """
    return asyncio.run(_run(arguments, settings))


async def _run(arguments: Namespace, settings: Settings) -> int:
    async with _store.registry(settings) as registry:
        projects = [await registry.get(arguments.project)] if arguments.project else await registry.all()
        return await check_projects(registry.link, projects, settings, repair=arguments.repair)


async def check_projects(link: Link, projects: Sequence[Project], settings: Settings, *, repair: bool = False) -> int:
    """Check `projects`, print as `run` says, and return the exit status."""
    found: list[Finding] = []
    stores = [await _store.sessions(link, project, settings) for project in projects]
    total = await nodes.key_count(link)
    for store in stores:
        total += sum(await link.batch([("ZCARD", partition.sessions) for partition in store.all_partitions]))
    with tqdm(total=total, desc="check", unit=" looks", file=sys.stderr, disable=None, mininterval=0.2) as bar:
        for store in stores:
            checks = [Check(link, partition, settings, repair, bar.update) for partition in store.all_partitions]
            async for finding in check_all(checks):
                found.append(finding)
                bar.write(f"{store.project.slug}: {finding}", file=sys.stdout)
    open_findings = [finding for finding in found if not repair or finding.kind in BEYOND_REPAIR]
    sys.stdout.write(f"{len(found)} differences in {len(projects)} projects; {len(found) - len(open_findings)} mended\n")
    return 1 if open_findings else 0
