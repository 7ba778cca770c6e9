"""`check`: hold the index of every project against the stored configs, and mend it where asked."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace

from tqdm import tqdm

from service.commands import _store
from service.settings import Settings
from service.store.integrity import BEYOND_REPAIR, Check, Finding


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
    found: list[Finding] = []
    async with _store.registry(settings) as registry:
        projects = [await registry.get(arguments.project)] if arguments.project else await registry.all()
        stores = [await _store.sessions(registry.link, project, settings) for project in projects]
        partitions = [partition for store in stores for partition in store.all_partitions]
        total = sum(await registry.link.everywhere("DBSIZE"))
        for partition in partitions:
            total += await registry.link.call("ZCARD", partition.sessions)
        with tqdm(total=total, desc="check", unit=" looks", file=sys.stderr, mininterval=0.2) as bar:
            for partition in partitions:
                check = Check(registry.link, partition, settings, arguments.repair, bar.update)
                async for finding in check.findings():
                    found.append(finding)
                    bar.write(f"{partition.slug}: {finding}", file=sys.stdout)
    open_findings = [finding for finding in found if not arguments.repair or finding.kind in BEYOND_REPAIR]
    sys.stdout.write(f"{len(found)} differences in {len(projects)} projects; {len(found) - len(open_findings)} mended\n")
    return 1 if open_findings else 0
