"""`import`: put an export into a project, while servers run."""  # noqa: N999 - named as the command

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import get_args

import click
from tqdm import tqdm

from service.commands import _background, _export_file, _offline, _store
from service.commands._export_file import Reader
from service.commands._parameters import FILE, TEXT, takes_settings
from service.commands.check import check_projects
from service.configs.export_format import Line, SessionLine
from service.errors import BadRequest, StartupError, StoreUnavailable
from service.process import data_dir
from service.settings import CONNECTION, Settings
from service.store import manifest
from service.store.projects import Registry
from service.store.sessions import Sessions
from service.store.upkeep.bootstrap import DEFAULT_PROJECT
from service.store.upkeep.project_import import Counts, Item, OnConflict, ProjectImport
from service.store.upkeep.renumbering_import import RenumberingImport


@click.command()
@click.argument("file", type=FILE, required=False, metavar="[FILE]", help=".gz: compressed; -: standard input")
@click.option("--from", "url", type=TEXT, metavar="URL", help="a server of this API instead of a file [key: SCC_API_KEY]")
@click.option("--project", type=TEXT, default=DEFAULT_PROJECT, show_default=True, metavar="NAME", help="the project")
@click.option("--new-ids", is_flag=True, help="create every session anew, with a new id and new times")
@click.option("--renumber", is_flag=True, help="put the sessions among those of the project; stop all servers first")
@click.option(
    "--on-conflict",
    type=click.Choice(get_args(OnConflict)),
    default="fail",
    show_default=True,
    help="what to do about an id that the project uses for another session",
)
@takes_settings(CONNECTION)
def command(
    settings: Settings, file: str | None, url: str | None, project: str, new_ids: bool, renumber: bool, on_conflict: OnConflict
) -> int:
    """Import a file, or what a server has, and print what was done; with --renumber, then check all projects.

    The exit status is 0, or 1 if the check finds a difference.
    """
    if (file is None) == (url is None):
        raise click.UsageError("give a file, or a server with --from, and not both")
    if new_ids and renumber:
        raise BadRequest("--new-ids needs no --renumber")
    with _source(file, url, settings) as items:
        if renumber:
            with _offline.redis_of(settings) as redis_url:
                return asyncio.run(_renumber(redis_url, settings, items, project, on_conflict))
        _background.begin()
        asyncio.run(_import(data_dir.with_running_redis(settings), items, project, on_conflict, new_ids))
    return 0


async def _import(settings: Settings, items: AsyncIterator[Item], name: str, on_conflict: OnConflict, new_ids: bool) -> None:
    async with _store.registry(settings) as registry:
        sessions = await _store.sessions(registry.redis, await registry.get(name), settings)
        work = ProjectImport(sessions, on_conflict, new_ids)
        try:
            await work.run(items)
        finally:
            sys.stdout.write(counted(work.counts) + "\n")


async def _renumber(redis_url: str, settings: Settings, items: AsyncIterator[Item], name: str, on_conflict: OnConflict) -> int:
    redis = _offline.open_client(redis_url, settings)
    try:
        partitions = (await manifest.read(redis)).partitions
        registry = Registry(redis, settings.key_secret)
        sessions = Sessions(redis, await registry.get(name), settings, partitions)
        work = RenumberingImport(sessions, on_conflict)
        try:
            await work.renumber(items, wait=_offline.wait(settings), bar=_offline.phase_bar)
        finally:
            sys.stdout.write(counted(work.counts) + "\n")
        return await check_projects(redis, await registry.all())
    except StoreUnavailable as error:
        raise StartupError("the store is not available; run this command again to resume") from error
    finally:
        await redis.close()


@contextmanager
def _source(file: str | None, url: str | None, settings: Settings) -> Iterator[AsyncIterator[Item]]:
    """The items of the file, or else of the server, with a progress bar."""
    if file is not None:
        with _export_file.reader(file) as opened:
            yield _with_bar(opened, _export_file.items(opened.file, settings))
        return
    from service.client import access, source

    with source.PatientApi(access.find(url)) as api:
        yield _from_server(source.lines(api))


async def _from_server(lines: Iterator[tuple[str, Line]]) -> AsyncIterator[Item]:
    with tqdm(desc="import", unit=" sessions", file=sys.stderr, disable=None, mininterval=0.2) as bar:
        for where, line in lines:
            yield Item(where, line)
            bar.update(isinstance(line, SessionLine))


def counted(counts: Counts) -> str:
    """What an import did, in a line."""
    details = [
        f"{count} {what}"
        for count, what in (
            (counts.replaced, "replaced"),
            (counts.present, "already in the project"),
            (counts.skipped, "skipped"),
            (counts.expired, "expired"),
            (counts.older, "left out, created before others of the project"),
        )
        if count
    ]
    rest = f" ({', '.join(details)})" if details else ""
    return f"imported {counts.created} sessions{rest} and {counts.users} users"


async def _with_bar(opened: Reader, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
    total = opened.size or None
    with tqdm(total=total, desc="import", unit="B", unit_scale=True, file=sys.stderr, disable=None, mininterval=0.2) as bar:
        async for item in items:
            bar.update(opened.position() - bar.n)
            yield item
