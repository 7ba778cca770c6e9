"""A project of a server of this API, Acontext's own included, as the lines of an export."""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import msgspec

from service.client.answer import elements, member, text
from service.client.api import Api
from service.configs.document import EMPTY
from service.configs.export_format import FORMAT, Line, ProjectLine, SessionLine, UserLine, decode
from service.errors import BadRequest, ServerUnreachable

#: Seconds before each further attempt of a call that got no answer.
RETRIES = (1.0, 2.0, 5.0, 10.0)
#: A member that Acontext's server adds to the configs of every project: a state of that server, and no config.
SERVER_STATE = "encryption_enabled"

T = TypeVar("T")
#: A time without an offset could be any.
Time = Annotated[datetime, msgspec.Meta(tz=True)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Row(msgspec.Struct):
    """A session as a list has it. Acontext's server has neither `expires_at` nor `revision`."""

    id: str
    configs: msgspec.Raw
    created_at: Time
    updated_at: Time
    user_id: str | None = None
    disable_task_tracking: bool = False
    expires_at: Time | None = None
    revision: int = 1


class _User(msgspec.Struct):
    id: str
    identifier: str
    created_at: Time


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
        BadRequest: an answer is not one of this API, or has a value that no line of a file may have.
        ServerUnreachable, CallRefused: as `Api.call`.
    """
    for where, line in _lines(api):
        try:
            # As the line of a file is checked: msgspec checks the ranges of values when it decodes.
            yield where, decode(msgspec.json.encode(line))
        except OverflowError:
            raise BadRequest(f"{where}: a number is out of range") from None
        except BadRequest as error:
            raise BadRequest(f"{where}: {error.message}") from None


def _lines(api: Api) -> Iterator[tuple[str, Line]]:
    yield "the project", _project(member(api.call("GET", "/project/configs")[1], "data"))
    names: dict[str, str] = {}
    for user in _users(api):
        names[user.id] = user.identifier
        yield f"user {_printable(user.identifier)}", UserLine(user=user.identifier, created_at=_microseconds(user.created_at))
    for raw in api.sessions({}):
        row = _decoded(raw, _Row)
        if row.user_id is not None and row.user_id not in names:
            # The user is newer than the list.
            names |= {user.id: user.identifier for user in _users(api)}
        yield f"session {_printable(row.id)}", _session(row, names)


def _project(configs: bytes) -> ProjectLine:
    members = _decoded(configs, dict[str, msgspec.Raw])
    if SERVER_STATE in members:
        del members[SERVER_STATE]
        configs = msgspec.json.encode(members)
    revision = int(configs != EMPTY)
    return ProjectLine(format=FORMAT, name="", id="", configs=msgspec.Raw(configs), configs_revision=revision, not_before=0)


def _session(row: _Row, names: Mapping[str, str]) -> SessionLine:
    if row.user_id is not None and row.user_id not in names:
        where, user = f"session {_printable(row.id)}", _printable(row.user_id)
        raise BadRequest(f"{where}: its user {user} is not in the server's list of users; try again")
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


def _printable(text: str) -> str:
    """What a server has sent, for a message."""
    return ascii(text)[1:-1]


def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)
