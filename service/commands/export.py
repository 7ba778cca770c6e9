"""`export`: write a project's configs, users and sessions to a file, while servers run."""

import asyncio
import sys

import click
from tqdm import tqdm

from service.commands import _background, _export_file, _store
from service.commands._export_file import STANDARD
from service.commands._parameters import FILE, TEXT, takes_settings
from service.process import data_dir, streams
from service.redis_client.client import checked
from service.settings import CONNECTION, Settings
from service.store.sessions import Sessions
from service.store.upkeep.bootstrap import DEFAULT_PROJECT
from service.store.upkeep.project_export import ProjectExport


@click.command()
@click.argument("file", type=FILE, default=STANDARD, metavar="[FILE]", help=".gz: compressed; -: standard output")
@click.option("--project", type=TEXT, default=DEFAULT_PROJECT, show_default=True, metavar="NAME", help="the project")
@takes_settings(CONNECTION)
def command(settings: Settings, file: str, project: str) -> int:
    """Write the lines of an export, and a summary to standard error.

    The exit status is 1 if sessions are damaged; each of them is named, and left out.
    """
    _background.begin()
    return asyncio.run(export(data_dir.with_running_redis(settings), project, file))


async def export(settings: Settings, name: str, file: str) -> int:
    """Export the project `name` to `file`; returns the exit status."""
    async with _store.registry(settings, writes=False) as registry:
        sessions = await _store.sessions(registry.redis, await registry.get(name), settings)
        total = await _count(sessions)
        with tqdm(total=total, desc="export", unit=" sessions", file=sys.stderr, disable=None, mininterval=0.2) as bar:
            work = ProjectExport(sessions, bar.update)
            with _export_file.writer(file) as output:
                async for lines in work.lines():
                    output.write(lines)
    for session_id in work.damaged:
        streams.report(f"session {session_id} is damaged and not in the export; run check")
    streams.report(f"exported {work.totals.sessions} sessions and {work.totals.users} users of project {name}")
    return 1 if work.damaged else 0


async def _count(sessions: Sessions) -> int:
    counts = checked(await sessions.redis.batch([("ZCARD", partition.sessions) for partition in sessions.all_partitions]))
    return sum(counts)
