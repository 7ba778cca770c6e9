"""Commands over HTTP: read and write sessions with an API key, without access to Redis."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from service.client import access, answer, items, output
from service.commands._parameters import TEXT
from service.configs.document import member_span
from service.errors import NothingFound, ServerUnreachable

if TYPE_CHECKING:
    from service.client.api import Api

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: The option `-` instead of items: a JSON object on standard input.
_STDIN = "-"

_url = click.option("--url", type=TEXT, metavar="URL", help=f"the server (default: {access.DEFAULT_URL}) [{access.URL}]")
_watch = click.option(
    "--watch", type=click.IntRange(1, 86_400), metavar="N", help="repeat every N seconds, until the server refuses"
)
_id = click.argument("session_id", type=TEXT, metavar="ID", help="the session's id")
_ttl = click.option("--ttl", type=TEXT, metavar="SECONDS", help="the session's lifetime from now on; null: none")


def _items(text: str, *, required: bool = False) -> Callable[[Decorated], Decorated]:
    metavar = "ITEM..." if required else "[ITEM]..."
    return click.argument("words", nargs=-1, type=TEXT, required=required, metavar=metavar, help=text)


_members = _items("KEY=TEXT or KEY:=JSON, @FILE: from a file; - reads a JSON object from standard input", required=True)


def _filter(function: Decorated) -> Decorated:
    """The arguments that choose sessions."""
    function = click.option("--user", type=TEXT, metavar="USER", help="only sessions of this user")(function)
    return _items("KEY=TEXT or KEY:=JSON that the configs contain")(function)


def _api(url: str | None) -> "Api":
    from service.client.api import Api  # httpx takes long to import

    return Api(access.find(url))


@click.group()
def command() -> None:
    """Commands with an API key."""


@command.command()
@_id
@click.argument("key", type=TEXT, required=False, help="print only this top-level value, a string without quotes")
@click.option("--session", "is_whole", is_flag=True, help="print the whole session, not only its configs")
@_watch
@_url
def get(session_id: str, key: str | None, is_whole: bool, watch: int | None, url: str | None) -> int:
    with _api(url) as api:

        def once() -> None:
            session = answer.member(api.on_session("GET", session_id), "data")
            output.say(output.one_line(session) if is_whole else _value(answer.member(session, "configs"), key))

        return _repeat(once, watch)


def _value(configs: bytes, key: str | None) -> str:
    if key is None:
        return configs.decode()
    try:
        return output.plain(member_span(b"{}" if configs == b"null" else configs, key))
    except KeyError:
        raise NothingFound(f"the session has no key {key!a}") from None


@command.command("set")
@_id
@_members
@_ttl
@_url
def replace(session_id: str, words: Sequence[str], ttl: str | None, url: str | None) -> int:
    return _write("PUT", session_id, _configs(words), ttl, url)


@command.command()
@_id
@_members
@_ttl
@_url
def patch(session_id: str, words: Sequence[str], ttl: str | None, url: str | None) -> int:
    return _write("PATCH", session_id, _configs(words), ttl, url)


@command.command()
@_id
@click.argument("keys", nargs=-1, type=TEXT, required=True, metavar="KEY...", help="top-level keys to delete")
@_url
def unset(session_id: str, keys: Sequence[str], url: str | None) -> int:
    return _write("PATCH", session_id, items.json_object(dict.fromkeys(keys, "null")), None, url)


@command.command()
@_items("KEY=TEXT or KEY:=JSON, @FILE: from a file; - reads a JSON object from standard input; none: no configs")
@click.option("--user", type=TEXT, metavar="USER", help="the session's user")
@click.option("--id", "session_id", type=TEXT, metavar="UUID", help="the session's id; default: a new one")
@_ttl
@_url
def create(words: Sequence[str], user: str | None, session_id: str | None, ttl: str | None, url: str | None) -> int:
    members = {"configs": _configs(words)} if words else {}
    members |= {name: json.dumps(text) for name, text in (("user", user), ("use_uuid", session_id)) if text is not None}
    with _api(url) as api:
        status, body = api.call("POST", "/session", items.json_object(members | _lifetime(ttl)))
    if status != 201:
        sys.stderr.write("a session with this id exists; nothing was changed\n")
    output.say(answer.text(answer.member(body, "data"), "id"))
    return 0


@command.command()
@_id
@_url
def delete(session_id: str, url: str | None) -> int:
    with _api(url) as api:
        api.on_session("DELETE", session_id)
    return 0


@command.command()
@_id
@_url
def copy(session_id: str, url: str | None) -> int:
    with _api(url) as api:
        body = api.on_session("POST", session_id, "/copy")
    output.say(answer.text(answer.member(body, "data"), "new_session_id"))
    return 0


@command.command("list")
@_filter
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="at most N sessions")
@click.option("--newest", is_flag=True, help="the newest sessions first instead of the oldest")
@_watch
@_url
def list_sessions(words: Sequence[str], user: str | None, limit: int, newest: bool, watch: int | None, url: str | None) -> int:
    query = _query(words, user) | ({"time_desc": "true"} if newest else {})
    with _api(url) as api:

        def once() -> None:
            sessions = api.sessions(query, limit)
            printed = _print_table(list(sessions), watch) if sys.stdout.isatty() else _print_lines(sessions)
            if not printed:
                raise NothingFound("no session matches")

        return _repeat(once, watch)


def _print_table(sessions: Sequence[bytes], watch: int | None) -> int:
    if watch:
        click.clear()
    if sessions:
        output.say(output.table(sessions))
    return len(sessions)


def _print_lines(sessions: Iterable[bytes]) -> int:
    lines = 0
    for session in sessions:
        output.say(output.one_line(session))
        lines += 1
    return lines


@command.command()
@_filter
@_watch
@_url
def count(words: Sequence[str], user: str | None, watch: int | None, url: str | None) -> int:
    query = _query(words, user)
    with _api(url) as api:
        return _repeat(lambda: output.say(str(sum(1 for _ in api.sessions(query)))), watch)


@command.command()
@_watch
@_url
def ping(watch: int | None, url: str | None) -> int:
    with _api(url) as api:

        def once() -> None:
            api.call("GET", "/ping")
            output.say("pong")

        return _repeat(once, watch)


def _write(method: str, session_id: str, configs: str, ttl: str | None, url: str | None) -> int:
    with _api(url) as api:
        api.on_session(method, session_id, "/configs", items.json_object({"configs": configs} | _lifetime(ttl)))
    return 0


def _configs(words: Sequence[str]) -> str:
    """The JSON object that the items, or standard input, give."""
    try:
        if words == (_STDIN,):
            return items.checked_object(sys.stdin.buffer.read().decode())
        return items.json_object(items.members(words))
    except UnicodeDecodeError:
        raise click.UsageError("the input is not UTF-8") from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _lifetime(ttl: str | None) -> dict[str, str]:
    if ttl is None:
        return {}
    if ttl != "null" and not (ttl.isascii() and ttl.isdecimal()):
        raise click.UsageError("--ttl must be a number of seconds, or null")
    return {"ttl": ttl}


def _query(words: Sequence[str], user: str | None) -> dict[str, str]:
    query = {} if user is None else {"user": user}
    return query | ({"filter_by_configs": _configs(words)} if words else {})


def _repeat(once: Callable[[], None], seconds: int | None) -> int:
    """Run `once`, with `seconds` again and again: until the server refuses, or Ctrl-C."""
    if seconds is None:
        once()
        return 0
    while True:
        try:
            once()
        except (NothingFound, ServerUnreachable) as error:
            sys.stderr.write(f"{error}\n")
        time.sleep(seconds)
