"""`find`: find sessions by what their configs contain."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace

from service.commands import _store
from service.configs.containment import Filter
from service.configs.term_query import TermQuery
from service.errors import BadRequest
from service.settings import Settings
from service.store import listing
from service.store.cursors import decode_session_cursor
from service.store.listing import Query
from service.store.sessions import Sessions
from service.store.upkeep.bootstrap import DEFAULT_PROJECT


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("terms", nargs="?", metavar="TERMS", help="""terms, for example 'agent="bot1" env="prod"'""")
    parser.add_argument("--json", metavar="FILTER", help="""a JSON filter instead of terms, for example '{"agent":"bot1"}'""")
    parser.add_argument("--project", default=DEFAULT_PROJECT, metavar="NAME", help="the project (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="print at most N sessions (default: %(default)s)")
    parser.add_argument("--newest", action="store_true", help="print the newest sessions first instead of the oldest")
    parser.add_argument("--count", action="store_true", help="print the number of sessions instead of the sessions")


def run(arguments: Namespace, settings: Settings) -> int:
    """Print one line for each matching session: its id and configs. The exit status is 0, or 1 if none matches."""
    return asyncio.run(_run(arguments, settings))


async def _run(arguments: Namespace, settings: Settings) -> int:
    query = _query(arguments, settings)
    async with _store.registry(settings) as registry:
        project = await registry.get(arguments.project)
        sessions = await _store.sessions(registry.redis, project, settings)
        count = await (_count(sessions, query) if arguments.count else _print(sessions, query, arguments.limit))
    return 0 if count else 1


def _query(arguments: Namespace, settings: Settings) -> Query:
    if (arguments.terms is None) == (arguments.json is None):
        raise BadRequest("find needs terms, or a filter with --json")
    if arguments.limit < 1:
        raise BadRequest("--limit must be 1 or more")
    if arguments.json is not None:
        return Query(filter=Filter.parse(arguments.json.encode(), settings), descending=arguments.newest)
    terms = TermQuery(arguments.terms)
    return Query(user=terms.user, filter=terms if terms.required_terms else None, descending=arguments.newest)


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
