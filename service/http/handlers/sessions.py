"""Sessions and their configs."""

from uuid import uuid4

from service.configs.budget import Budget
from service.configs.containment import Filter
from service.configs.document import NULL, Document, check_size, is_stored_form, parse
from service.configs.limits import Limits
from service.errors import BadRequest, Unreadable
from service.http import envelope, requests
from service.http.answer import Answer
from service.http.context import Call
from service.http.protocol import client_check
from service.store import listing
from service.store.sessions import Session
from service.store.time_slices import TimeSlice
from service.store.users import check_identifier

DEFAULT_LIMIT, MAX_LIMIT = 20, 200


async def create(call: Call) -> Answer:
    """POST /session."""
    limits = call.settings
    body = await requests.json_body(call)
    user = body.text("user") or None
    if user is not None:
        check_identifier(user, limits)
    wanted = body.text("use_uuid") or ""
    new_id = requests.canonical_uuid(wanted) if wanted else str(uuid4())
    if new_id is None:
        raise BadRequest("invalid UUID format for use_uuid")
    document, flag, ttl = body.configs(limits, required=False), body.flag("disable_task_tracking"), body.ttl()
    users = call.store.users
    if user is not None:
        # What is refused makes no user known either.
        check_size(NULL if document is None else document.configs, limits)
        await users.expect(user, new_id if wanted else "")
    session, created = await call.store.sessions.create(new_id, document, user=user, disable_task_tracking=flag, ttl=ttl)
    if created and user is not None:
        await users.confirm(user)
    return _answer(call, session, status=201 if created else 200)


async def get(call: Call) -> Answer:
    """GET /session/{session_id} and GET /session/{session_id}/configs."""
    session = await call.store.sessions.get(requests.session_id(call.parameter))
    if requests.none_match(call.request.headers, session.etag):
        return envelope.not_modified(session.etag)
    return _answer(call, session)


async def list_page(call: Call) -> Answer:
    """GET /session."""
    limits, parameters = call.settings, requests.query(call.request)
    limit = requests.whole_number(parameters, "limit", default=DEFAULT_LIMIT, least=1, most=MAX_LIMIT)
    store = call.store.sessions
    cursor = parameters.get("cursor")
    user = parameters.get("user") or None
    query = listing.Query(
        user=user,
        filter=Filter.parse(parameters.get("filter_by_configs", "").encode(), limits),
        descending=requests.boolean(parameters, "time_desc"),
        after=listing.decode_cursor(cursor, store.partitions) if cursor else None,
    )
    budget = Budget(
        candidates=limits.max_list_candidates,
        max_bytes=limits.max_list_bytes,
        comparisons=limits.max_list_comparisons,
    )
    time_slice = TimeSlice(call.worker.scans, client_check(call.request))
    page = await listing.page(
        store, query, limit, max_bytes=limits.max_page_bytes, budget=budget, time_slice=time_slice
    )
    items = [_item(session, store.project.id, limits) for session in page.sessions]
    return envelope.ok(envelope.list_json(items, page.cursor))


async def replace(call: Call) -> Answer:
    """PUT /session/{session_id}/configs."""
    session_id, document, ttl = await _write(call)
    written = await call.store.sessions.replace(
        session_id, document, if_match=requests.if_match(call.request.headers), ttl=ttl
    )
    return envelope.ok(etag=written.etag)


async def patch(call: Call) -> Answer:
    """PATCH /session/{session_id}/configs."""
    session_id, document, ttl = await _write(call)
    written = await call.store.sessions.patch(
        session_id, document, if_match=requests.if_match(call.request.headers), ttl=ttl
    )
    return envelope.ok(b'{"configs":%b}' % written.configs, etag=written.etag)


async def delete(call: Call) -> Answer:
    """DELETE /session/{session_id}."""
    await call.store.sessions.delete(requests.session_id(call.parameter), if_match=requests.if_match(call.request.headers))
    return envelope.ok()


async def copy(call: Call) -> Answer:
    """POST /session/{session_id}/copy."""
    session_id = requests.session_id(call.parameter)
    new = await call.store.sessions.copy(session_id, str(uuid4()))
    if new.user is not None:
        await call.store.users.confirm(new.user)
    data = b'{"old_session_id":"%b","new_session_id":"%b"}' % (session_id.encode(), new.id.encode())
    return envelope.ok(data, status=201, etag=new.etag)


async def _write(call: Call) -> tuple[str, Document, int | None]:
    session_id = requests.session_id(call.parameter)
    limits = call.settings
    body = await requests.json_body(call)
    document = body.configs(limits, required=True)
    assert document is not None  # noqa: S101 - required
    return session_id, document, body.ttl()


def _answer(call: Call, session: Session, *, status: int = 200) -> Answer:
    if not _readable(session, call.settings):
        raise Unreadable
    return envelope.ok(envelope.session_json(session, call.store.project.id), status=status, etag=session.etag)


def _item(session: Session, project_id: str, limits: Limits) -> bytes:
    # One damaged session must not take the list with it.
    shown = session if _readable(session, limits) else session._replace(configs=NULL)
    return envelope.session_json(shown, project_id)


def _readable(session: Session, limits: Limits) -> bool:
    """Whether the configs can go into an answer as they are; only a hand can have made them otherwise."""
    if is_stored_form(session.configs):
        return True
    try:
        return isinstance(parse(session.configs, max_nesting=limits.max_nesting), dict)
    except BadRequest:
        return False
