"""Sessions and their configs."""

from dataclasses import replace as replace_fields
from uuid import uuid4

from aiohttp import web

from service.configs.containment import Filter
from service.configs.document import NULL, Document, is_stored_form, parse
from service.configs.limits import Limits
from service.errors import BadRequest, Unreadable
from service.http import envelope, requests
from service.http.context import PROJECT, context, sessions, users
from service.store import listing
from service.store.sessions import Session
from service.store.users import check_identifier

DEFAULT_LIMIT, MAX_LIMIT = 20, 200


async def create(request: web.Request) -> web.Response:
    """POST /session."""
    limits = context(request).settings
    body = await requests.json_body(request, limits)
    user = body.text("user") or None
    if user is not None:
        check_identifier(user, limits)
    wanted = body.text("use_uuid") or ""
    new_id = requests.canonical_uuid(wanted) if wanted else str(uuid4())
    if new_id is None:
        raise BadRequest("invalid UUID format for use_uuid")
    session, created = await sessions(request).create(
        new_id,
        body.configs(limits, required=False),
        user=user,
        disable_task_tracking=body.flag("disable_task_tracking"),
    )
    if created and user is not None:
        await users(request).register(user)
    return _answer(request, session, status=201 if created else 200)


async def get(request: web.Request) -> web.Response:
    """GET /session/{session_id} and GET /session/{session_id}/configs."""
    session = await sessions(request).get(requests.session_id(request))
    if requests.none_match(request, session.etag):
        return envelope.not_modified(session.etag)
    return _answer(request, session)


async def list_page(request: web.Request) -> web.Response:
    """GET /session."""
    limits, parameters = context(request).settings, requests.query(request)
    limit = requests.whole_number(parameters, "limit", default=DEFAULT_LIMIT, least=1, most=MAX_LIMIT)
    store = sessions(request)
    cursor = parameters.get("cursor")
    user = parameters.get("user") or None
    query = listing.Query(
        user=user,
        filter=Filter.parse(parameters.get("filter_by_configs", "").encode(), limits),
        descending=requests.boolean(parameters, "time_desc"),
        after=listing.decode_cursor(cursor, store.partitions) if cursor else None,
    )
    page = await listing.page(store, query, limit)
    items = [_item(session, store.project.id, limits) for session in page.sessions]
    return envelope.ok(envelope.list_json(items, page.cursor))


async def replace(request: web.Request) -> web.Response:
    """PUT /session/{session_id}/configs."""
    session_id, document = await _write(request)
    written = await sessions(request).replace(session_id, document, if_match=requests.if_match(request))
    return envelope.ok(etag=written.etag)


async def patch(request: web.Request) -> web.Response:
    """PATCH /session/{session_id}/configs."""
    session_id, document = await _write(request)
    written = await sessions(request).patch(session_id, document, if_match=requests.if_match(request))
    return envelope.ok(b'{"configs":%b}' % written.configs, etag=written.etag)


async def delete(request: web.Request) -> web.Response:
    """DELETE /session/{session_id}."""
    await sessions(request).delete(requests.session_id(request), if_match=requests.if_match(request))
    return envelope.ok()


async def copy(request: web.Request) -> web.Response:
    """POST /session/{session_id}/copy."""
    session_id = requests.session_id(request)
    new = await sessions(request).copy(session_id, str(uuid4()))
    if new.user is not None:
        await users(request).register(new.user)
    data = b'{"old_session_id":"%b","new_session_id":"%b"}' % (session_id.encode(), new.id.encode())
    return envelope.ok(data, status=201, etag=new.etag)


async def _write(request: web.Request) -> tuple[str, Document]:
    session_id = requests.session_id(request)
    limits = context(request).settings
    body = await requests.json_body(request, limits)
    document = body.configs(limits, required=True)
    assert document is not None  # noqa: S101 - required
    return session_id, document


def _answer(request: web.Request, session: Session, *, status: int = 200) -> web.Response:
    if not _readable(session, context(request).settings):
        raise Unreadable
    return envelope.ok(envelope.session_json(session, request[PROJECT].id), status=status, etag=session.etag)


def _item(session: Session, project_id: str, limits: Limits) -> bytes:
    # One damaged session must not take the list with it.
    shown = session if _readable(session, limits) else replace_fields(session, configs=NULL)
    return envelope.session_json(shown, project_id)


def _readable(session: Session, limits: Limits) -> bool:
    """Whether the configs can go into an answer as they are; only a hand can have made them otherwise."""
    if is_stored_form(session.configs):
        return True
    try:
        return isinstance(parse(session.configs, max_nesting=limits.max_nesting), dict)
    except BadRequest:
        return False
