"""Sessions and their configs."""

from uuid import uuid4

from service.configs.budget import Budget
from service.configs.containment import Filter
from service.configs.document import NULL, Document, is_stored_form, parse
from service.configs.limits import Limits
from service.configs.ttl import Ttl
from service.errors import BadRequest, Unreadable
from service.http.api import parsing, representations
from service.http.server.context import Call
from service.http.server.protocol import client_check
from service.http.server.response import Response
from service.store import listing
from service.store.conditions import Conditions
from service.store.cursors import decode_session_cursor
from service.store.record import Session, Written
from service.store.time_slices import TimeSlice
from service.store.users import check_identifier

DEFAULT_LIMIT, MAX_LIMIT = 20, 200


async def create(call: Call) -> Response:
    """POST /session."""
    limits = call.settings
    _check_create_condition(call.conditions)
    body = await parsing.json_body(call)
    user = body.text("user") or None
    if user is not None:
        check_identifier(user, limits)
    given_id = body.text("use_uuid") or ""
    new_id = parsing.canonical_uuid(given_id) if given_id else str(uuid4())
    if new_id is None:
        raise BadRequest("invalid UUID format for use_uuid")
    document = body.configs(limits, required=False)
    disable_task_tracking, ttl = body.boolean("disable_task_tracking"), body.ttl()
    del body  # The parsed values take many times the memory of their bytes, and the store may take long.
    session, created = await call.store.sessions.create_session(
        new_id,
        document,
        user=user,
        disable_task_tracking=disable_task_tracking,
        ttl=ttl,
        may_exist=bool(given_id),
        conditions=call.conditions,
    )
    call.ticket.subject = session.id
    return _session_response(call, session, status=201 if created else 200)


def _check_create_condition(conditions: Conditions) -> None:
    """If-None-Match may only be *: no session may have the id yet. A list of states makes no sense for POST /session."""
    if conditions.if_none_match is not None and not conditions.if_none_match.any:
        raise BadRequest("If-None-Match must be * on POST /session")


async def get(call: Call) -> Response:
    """GET /session/{session_id} and GET /session/{session_id}/configs."""
    session_id, sessions = parsing.session_id(call.parameter), call.store.sessions
    if call.conditions.if_none_match is not None:
        etag = await sessions.unchanged(session_id, call.conditions)
        if etag is not None:
            return representations.not_modified(call.store.etag_prefix + etag)
    session = await sessions.get(session_id, call.conditions)
    if call.conditions.excludes(session.etag):
        return representations.not_modified(_etag(call, session))
    return _session_response(call, session)


async def list_page(call: Call) -> Response:
    """GET /session."""
    limits, parameters = call.settings, call.query
    limit = parsing.integer(parameters, "limit", default=DEFAULT_LIMIT, minimum=1, maximum=MAX_LIMIT)
    store = call.store.sessions
    cursor = parameters.get("cursor")
    user = parameters.get("user") or None
    query = listing.Query(
        user=user,
        filter=Filter.parse(parameters.get("filter_by_configs", "").encode(), limits),
        descending=parsing.boolean(parameters, "time_desc"),
        after=decode_session_cursor(cursor, store.partitions) if cursor else None,
    )
    budget = Budget(
        candidates=limits.max_list_candidates,
        max_bytes=limits.max_list_bytes,
        comparisons=limits.max_list_comparisons,
    )
    time_slice = TimeSlice(call.worker.scan_scheduler, client_check(call.request))
    page = await listing.page(
        store,
        query,
        limit,
        max_bytes=limits.max_page_bytes,
        budget=budget,
        time_slice=time_slice,
        large_lists=call.worker.large_lists,
    )
    if call.worker.counters is not None:
        call.worker.counters.listed(page.candidates, len(page.sessions))
    project_id = store.project.id.encode()
    items = [
        # One session with corrupt configs must not fail the whole list.
        representations.stored_session_json(
            session, session.configs if _is_readable(session.configs, limits) else NULL, project_id
        )
        for session in page.sessions
    ]
    return representations.ok(representations.list_json(items, page.cursor))


async def replace(call: Call) -> Response:
    """PUT /session/{session_id}/configs."""
    session_id, document, ttl = await _read_configs(call)
    written = await call.store.sessions.replace(session_id, document, conditions=call.conditions, ttl=ttl)
    return representations.ok(etag=_etag(call, written))


async def patch(call: Call) -> Response:
    """PATCH /session/{session_id}/configs."""
    session_id, document, ttl = await _read_configs(call)
    written = await call.store.sessions.patch(session_id, document, conditions=call.conditions, ttl=ttl)
    return representations.ok(b'{"configs":%b}' % written.configs, etag=_etag(call, written))


async def delete(call: Call) -> Response:
    """DELETE /session/{session_id}."""
    await call.store.sessions.delete(parsing.session_id(call.parameter), conditions=call.conditions)
    return representations.ok()


async def copy(call: Call) -> Response:
    """POST /session/{session_id}/copy."""
    session_id = parsing.session_id(call.parameter)
    new = await call.store.sessions.copy_session(session_id, str(uuid4()), call.conditions)
    data = b'{"old_session_id":"%b","new_session_id":"%b"}' % (session_id.encode(), new.id.encode())
    return representations.ok(data, etag=_etag(call, new))


async def _read_configs(call: Call) -> tuple[str, Document, Ttl]:
    """Session id, configs and TTL of a PUT or PATCH."""
    session_id = parsing.session_id(call.parameter)
    limits = call.settings
    body = await parsing.json_body(call)
    document = body.configs(limits, required=True)
    assert document is not None  # noqa: S101 - required
    return session_id, document, body.ttl()


def _session_response(call: Call, session: Session, *, status: int = 200) -> Response:
    if not _is_readable(session.configs, call.settings):
        raise Unreadable
    data = representations.session_json(session, call.store.project.id)
    return representations.ok(data, status=status, etag=_etag(call, session))


def _etag(call: Call, state: Session | Written) -> str:
    """The ETag of a state on the wire."""
    return call.store.etag_prefix + state.etag


def _is_readable(configs: bytes, limits: Limits) -> bool:
    """Whether stored configs are JSON and can be copied into a response. A manual edit may have broken them."""
    if is_stored_form(configs):
        return True
    try:
        return isinstance(parse(configs, max_nesting=limits.max_nesting), dict)
    except BadRequest:
        return False
