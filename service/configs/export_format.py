"""The lines of an export: one JSON object a line, each with a `type`.

    project   first: the project's name and id, its configs, and the last created_at that it assigned
    user      a user
    session   a session; its configs are those that are stored, without the line breaks between members
    end       last: how many users and sessions there are, and the SHA-256 of all bytes before this line

Times are microseconds since 1970. The stored form of configs has a line break after each member, which an import puts back:
they stay the same, byte for byte.
"""

import hashlib
from typing import Annotated, Final

import msgspec
import orjson

from service.configs.document import NULL
from service.configs.ttl import LAST_MOMENT
from service.errors import BadRequest

#: The version of this format.
FORMAT = 1
#: The largest number that Redis's Lua represents exactly.
MAX_INTEGER = 2**53
#: The largest revision of a file: writes can still count on from it.
MAX_REVISION = 2**52

Time = Annotated[int, msgspec.Meta(ge=0, le=LAST_MOMENT)]
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class _Line(msgspec.Struct, tag_field="type", forbid_unknown_fields=True, kw_only=True):
    """A line; a member that this release does not know is refused, or it would be lost."""


class ProjectLine(_Line, tag="project"):
    """The project of an export. `not_before`: the last created_at that it assigned, whether or not that session exists."""

    format: Annotated[int, msgspec.Meta(ge=1, le=FORMAT)]
    name: str
    id: str
    configs: msgspec.Raw
    configs_revision: Annotated[int, msgspec.Meta(ge=0, le=MAX_REVISION)]
    not_before: Time


class UserLine(_Line, tag="user"):
    """A user."""

    user: str
    created_at: Time


class SessionLine(_Line, tag="session"):
    """A session; `user` is an identifier."""

    id: str
    user: str | None
    created_at: Time
    updated_at: Time
    revision: Annotated[int, msgspec.Meta(ge=1, le=MAX_REVISION)]
    expires_at: Time | None
    disable_task_tracking: bool
    configs: msgspec.Raw


class EndLine(_Line, tag="end"):
    """The end of an export."""

    users: Count
    sessions: Count
    sha256: str


Line = ProjectLine | UserLine | SessionLine | EndLine

_DECODER: Final[msgspec.json.Decoder[Line]] = msgspec.json.Decoder(Line)


def decode(raw: bytes) -> Line:
    """Parse a line.

    Raises:
        BadRequest: it is not one, or a member is missing, unknown or out of range.
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(str(error)) from None


def session_line(
    *,
    session_id: str,
    user: str | None,
    created_at: int,
    updated_at: int,
    revision: int,
    expires_at: int | None,
    disable_task_tracking: bool,
    configs: bytes,
) -> bytes:
    """The line of a session; `configs` are in the stored form."""
    return (
        b'{"type":"session","id":"%b","user":%b,"created_at":%d,"updated_at":%d,"revision":%d,"expires_at":%b,'
        b'"disable_task_tracking":%b,"configs":%b}\n'
    ) % (
        session_id.encode(),
        NULL if user is None else orjson.dumps(user),
        created_at,
        updated_at,
        revision,
        NULL if expires_at is None else b"%d" % expires_at,
        b"true" if disable_task_tracking else b"false",
        one_line(configs),
    )


def user_line(user: str, created_at: int) -> bytes:
    """The line of a user."""
    return b'{"type":"user","user":%b,"created_at":%d}\n' % (orjson.dumps(user), created_at)


def project_line(*, name: str, project_id: str, configs: bytes, configs_revision: int, not_before: int) -> bytes:
    """The first line; `configs` are in the stored form."""
    return (b'{"type":"project","format":%d,"name":%b,"id":%b,"configs":%b,"configs_revision":%d,"not_before":%d}\n') % (
        FORMAT,
        orjson.dumps(name),
        orjson.dumps(project_id),
        one_line(configs),
        configs_revision,
        not_before,
    )


def one_line(configs: bytes) -> bytes:
    """Stored configs without line breaks, which are insignificant white space."""
    return configs.replace(b"\n", b"")


class Totals:
    """The counts and the digest of the lines so far, for the last one."""

    def __init__(self) -> None:
        self.users = 0
        self.sessions = 0
        self._hash = hashlib.sha256()

    def add(self, lines: bytes) -> None:
        """Count these bytes in the digest."""
        self._hash.update(lines)

    def end_line(self) -> bytes:
        """The last line."""
        return b'{"type":"end","users":%d,"sessions":%d,"sha256":"%b"}\n' % (
            self.users,
            self.sessions,
            self._hash.hexdigest().encode(),
        )

    def match(self, end: EndLine) -> bool:
        """Whether the last line says the same."""
        return (end.users, end.sessions, end.sha256) == (self.users, self.sessions, self._hash.hexdigest())
