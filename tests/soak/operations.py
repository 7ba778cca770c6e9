"""The requests about one session, and what each does in every state in which the session may be.

`configs` are a JSON text and the members that it spells, see `values.written`. `ttl` is a lifetime in seconds, 0 for null, and
None if the request does not have it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.soak.sessions import Operation, Outcome, Possible, Session, shows_configs, shows_nothing, shows_session
from tests.soak.states import Span, State, expect, lifetime
from tests.soak.values import Values
from tests.support.http_client import Request, Response
from tests.support.model import merged

Spelled = tuple[str, Values]


def create(session: Session, body: str, new: State, ttls: Callable[[], Sequence[int]]) -> Operation:
    """POST; `body` asks for `new`, which has one of the lifetimes that `ttls` returns when it is created."""

    def outcomes(state: Possible, span: Span) -> list[Outcome]:
        if state is not None:
            return [(200, state)]
        made = replace(new, id=session.id, not_before=session.newest)
        return [(201, replace(made, expires=lifetime(ttl, span))) for ttl in ttls()]

    return Operation(Request("POST", "/session", body.encode()), outcomes, shows_session)


def creation(
    session_id: str, configs: Spelled | None, user: str | None, *, tracking: bool, ttl: int | None
) -> tuple[str, State]:
    """The body of a POST, and the state that it asks for; an empty id leaves the choice to the server."""
    fields = {"configs": configs[0]} if configs else {}
    if session_id:
        fields["use_uuid"] = json.dumps(session_id)
    if user is not None:
        fields["user"] = json.dumps(user)
    if tracking:
        fields["disable_task_tracking"] = "true"
    return _body(fields | _ttl(ttl)), State(session_id, configs[1] if configs else None, user, tracking)


def read(session: Session, *, path: str = "", none_match: str = "") -> Operation:
    """GET, with or without If-None-Match."""

    def outcomes(state: Possible, _: Span) -> list[Outcome]:
        if state is None:
            return [(404, None)]
        return [(304 if none_match in ("*", state.etag) else 200, state)]

    request = Request("GET", f"/session/{session.id}{path}", None, _condition("If-None-Match", none_match))
    return Operation(request, outcomes, shows_session, writes=False)


def put(session: Session, configs: Spelled, *, if_match: str, ttl: int | None) -> Operation:
    """PUT: all configs are replaced."""
    text, values = configs

    def outcomes(state: Possible, span: Span) -> list[Outcome]:
        return _written(state, if_match, lambda current: current.written(values, ttl, span))

    return Operation(_write("PUT", session, text, if_match, ttl), outcomes, shows_nothing)


def patch(session: Session, changes: Spelled, *, if_match: str, ttl: int | None) -> Operation:
    """PATCH: members are set, or removed where they are null."""
    text, members = changes

    def outcomes(state: Possible, span: Span) -> list[Outcome]:
        return _written(state, if_match, lambda current: current.written(merged(current.values, members), ttl, span))

    return Operation(_write("PATCH", session, text, if_match, ttl), outcomes, shows_configs)


def delete(session: Session, *, if_match: str) -> Operation:
    """DELETE."""

    def outcomes(state: Possible, _: Span) -> list[Outcome]:
        return _written(state, if_match, lambda _: None)

    request = Request("DELETE", f"/session/{session.id}", None, _condition("If-Match", if_match))
    return Operation(request, outcomes, shows_nothing)


def copy(session: Session) -> Operation:
    """POST of a copy. It does not change the session itself, so it is no write to it."""

    def outcomes(state: Possible, _: Span) -> list[Outcome]:
        return [(404, None) if state is None else (200, state)]

    def learn(response: Response, state: State) -> State:
        expect("the copy's revision", response.etag.rpartition("-")[2], "1")
        return state

    return Operation(Request("POST", f"/session/{session.id}/copy"), outcomes, learn, writes=False)


def _written(state: Possible, if_match: str, write: Callable[[State], Possible]) -> list[Outcome]:
    """What a write with a condition does."""
    if state is None:
        return [(412 if if_match else 404, None)]
    return [(200, write(state))] if if_match in ("", "*", state.etag) else [(412, state)]


def _write(method: str, session: Session, text: str, if_match: str, ttl: int | None) -> Request:
    body = _body({"configs": text} | _ttl(ttl))
    return Request(method, f"/session/{session.id}/configs", body.encode(), _condition("If-Match", if_match))


def _condition(name: str, etag: str) -> dict[str, str]:
    return {name: etag if etag == "*" else f'"{etag}"'} if etag else {}


def _ttl(ttl: int | None) -> dict[str, str]:
    return {} if ttl is None else {"ttl": str(ttl or "null")}


def _body(members: dict[str, str]) -> str:
    return "{" + ", ".join(f'"{name}": {text}' for name, text in members.items()) + "}"
