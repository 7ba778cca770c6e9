"""A project of a server of this API, Acontext's own included, as the lines of an export."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from service.client.answer import elements, member, text
from service.client.api import Api
from service.configs.document import EMPTY
from service.configs.export_format import FORMAT, Line, ProjectLine, SessionLine, UserLine
from service.errors import BadRequest, ServerUnreachable

#: Seconds before each further attempt of a call that got no answer.
RETRIES = (1.0, 2.0, 5.0, 10.0)

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Row(msgspec.Struct):
    """A session as a list has it. Acontext's server has neither `expires_at` nor `revision`."""

    id: str
    configs: msgspec.Raw
    created_at: datetime
    updated_at: datetime
    user_id: str | None = None
    disable_task_tracking: bool = False
    expires_at: datetime | None = None
    revision: int = 1


class _User(msgspec.Struct):
    id: str
    identifier: str
    created_at: datetime


class PatientApi(Api):
    """Repeats calls that got no answer; only for calls that read."""

    def call(
        self, method: str, path: str, body: str | None = None, query: Mapping[str, str | int] | None = None
    ) -> tuple[int, bytes]:
        """As `Api.call`."""
        for pause in RETRIES:
            try:
                return super().call(method, path, body, query)
            except ServerUnreachable:
                time.sleep(pause)
        return super().call(method, path, body, query)


def lines(api: Api) -> Iterator[tuple[str, Line]]:
    """The lines, and what each is about, for messages. Sessions are in the order of creation.

    Raises:
        ServerUnreachable, CallRefused: as `Api.call`.
    """
    configs = member(api.call("GET", "/project/configs")[1], "data")
    yield (
        "the project",
        ProjectLine(
            format=FORMAT,
            name="",
            id="",
            configs=msgspec.Raw(configs),
            configs_revision=int(configs != EMPTY),
            not_before=0,
        ),
    )
    names: dict[str, str] = {}
    for user in _users(api):
        names[user.id] = user.identifier
        yield f"user {user.identifier}", UserLine(user=user.identifier, created_at=_microseconds(user.created_at))
    for raw in api.sessions({}):
        row = _decoded(raw, _Row)
        if row.user_id is not None and row.user_id not in names:
            # The user is newer than the list.
            names |= {user.id: user.identifier for user in _users(api)}
        yield f"session {row.id}", _session(row, names)


def _session(row: _Row, names: Mapping[str, str]) -> SessionLine:
    if row.user_id is not None and row.user_id not in names:
        raise BadRequest(f"session {row.id}: its user {row.user_id} is not in the server's list of users; try again")
    return SessionLine(
        id=row.id,
        user=None if row.user_id is None else names[row.user_id],
        created_at=_microseconds(row.created_at),
        updated_at=_microseconds(row.updated_at),
        revision=row.revision,
        expires_at=None if row.expires_at is None else _microseconds(row.expires_at),
        disable_task_tracking=row.disable_task_tracking,
        configs=row.configs,
    )


def _users(api: Api) -> Iterator[_User]:
    query: dict[str, str | int] = {}
    while True:
        data = member(api.call("GET", "/user/ls", query=query)[1], "data")
        for raw in elements(member(data, "items")):
            yield _decoded(raw, _User)
        if member(data, "has_more") != b"true":
            return
        query = {"cursor": text(data, "next_cursor")}


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise BadRequest(f"the server's answer is not one of this API: {error}") from None


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
