"""`find`: find sessions by what their configs contain."""

import asyncio
import sys

import click

from service.commands import _store
from service.commands._parameters import TEXT, takes_settings
from service.configs.containment import Filter
from service.configs.term_query import TermQuery
from service.errors import BadRequest
from service.process import data_dir
from service.settings import CONNECTION, Settings
from service.store import listing
from service.store.cursors import decode_session_cursor
from service.store.listing import Query
from service.store.sessions import Sessions
from service.store.upkeep.bootstrap import DEFAULT_PROJECT


@click.command()
@click.argument("terms", type=TEXT, required=False, metavar="[TERMS]", help="""terms, for example 'agent="bot1" env="prod"'""")
@click.option("--json", "text", type=TEXT, metavar="FILTER", help="""a JSON filter instead, for example '{"agent":"bot1"}'""")
@click.option("--project", type=TEXT, default=DEFAULT_PROJECT, show_default=True, metavar="NAME", help="the project")
@click.option("--limit", type=int, default=20, show_default=True, metavar="N", help="print at most N sessions")
@click.option("--newest", is_flag=True, help="print the newest sessions first instead of the oldest")
@click.option("--count", is_flag=True, help="print the number of sessions instead of the sessions")
@takes_settings(CONNECTION)
def command(
    settings: Settings, terms: str | None, text: str | None, project: str, limit: int, newest: bool, count: bool
) -> int:
    """Print one line for each matching session: its id and configs. The exit status is 0, or 1 if none matches."""
    settings = data_dir.with_running_redis(settings)
    query = _query(terms, text, newest, settings)
    if limit < 1:
        raise BadRequest("--limit must be 1 or more")
    return asyncio.run(_find(settings, project, query, None if count else limit))


def _query(terms: str | None, text: str | None, newest: bool, settings: Settings) -> Query:
    if text is not None and terms is None:
        return Query(filter=Filter.parse(text.encode(), settings), descending=newest)
    if terms is None or text is not None:
        raise BadRequest("find needs terms, or a filter with --json")
    parsed = TermQuery(terms)
    return Query(user=parsed.user, filter=parsed if parsed.required_terms else None, descending=newest)


async def _find(settings: Settings, name: str, query: Query, limit: int | None) -> int:
    """Print at most `limit` sessions, or the number of all if it is None."""
    async with _store.registry(settings) as registry:
        sessions = await _store.sessions(registry.redis, await registry.get(name), settings)
        matches = await (_count(sessions, query) if limit is None else _print(sessions, query, limit))
    return 0 if matches else 1


async def _count(sessions: Sessions, query: Query) -> int:
    total = 0
    async for batch in listing.iter_matches(sessions, query):
        total += len(batch)
    sys.stdout.write(f"{total}\n")
    return total


async def _print(sessions: Sessions, query: Query, limit: int) -> int:
    remaining, after = limit, query.after
    while remaining:
        page = await listing.page(
            sessions,
            Query(query.user, query.filter, query.descending, after),
            min(remaining, listing.BATCH_MAX),
            max_bytes=sessions.limits.max_page_bytes,
        )
        for session in page.sessions:
            # The newlines in stored configs are insignificant white space; without them, a session is one line.
            sys.stdout.write(f"{session.id} {session.configs.decode().replace(chr(10), '')}\n")
        remaining -= len(page.sessions)
        if page.cursor is None:
            break
        after = decode_session_cursor(page.cursor, sessions.partitions)
    return limit - remaining
