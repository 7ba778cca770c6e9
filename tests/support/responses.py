"""Responses of the API, decoded as far as workload and soak check them; configs stay the bytes that were received."""

from functools import lru_cache
from typing import TypeVar
from uuid import UUID, uuid5

import msgspec

from tests.support.http_client import Response, Violation


class Row(msgspec.Struct, frozen=True):
    """A session."""

    id: str
    project_id: str
    user_id: str | None
    disable_task_tracking: bool
    configs: msgspec.Raw
    created_at: str
    updated_at: str
    revision: int
    expires_at: str | None = None

    def __str__(self) -> str:
        members = {name: getattr(self, name) for name in self.__struct_fields__ if name != "configs"}
        return f"{members} with configs {bytes(self.configs)!r}"

    def id_of(self, user: str | None) -> str | None:
        """The id that a user of this project has in responses."""
        return None if user is None else _user_id(self.project_id, user)


@lru_cache(maxsize=1000)
def _user_id(project_id: str, user: str) -> str:
    return str(uuid5(UUID(project_id), user))


class Page(msgspec.Struct):
    """A page of sessions."""

    items: list[Row]
    has_more: bool
    next_cursor: str | None = None


class User(msgspec.Struct):
    """A user."""

    id: str
    project_id: str
    identifier: str
    created_at: str


class UserPage(msgspec.Struct):
    """A page of users."""

    items: list[User]
    has_more: bool
    next_cursor: str | None = None


class Configs(msgspec.Struct):
    """All configs of a session after a PATCH."""

    configs: msgspec.Raw


class Copied(msgspec.Struct):
    """What a copy responses."""

    old_session_id: str
    new_session_id: str


class Counts(msgspec.Struct):
    """How much a user has."""

    sessions_count: int


class Resources(msgspec.Struct):
    """What a user has."""

    counts: Counts


class _Envelope(msgspec.Struct):
    code: int
    msg: str
    data: msgspec.Raw = msgspec.Raw(b"null")


T = TypeVar("T")


def data(response: Response, kind: type[T]) -> T:
    """What a response carries.

    Raises:
        Violation: the data or the envelope is malformed.
    """
    try:
        envelope = msgspec.json.decode(response.raw, type=_Envelope)
        if (envelope.code, envelope.msg) == (0, ""):
            return msgspec.json.decode(envelope.data, type=kind)
    except msgspec.DecodeError:
        pass
    raise Violation(f"a response is malformed: {response.status} {response.raw[:500].decode(errors='replace')}")


def members(raw: msgspec.Raw) -> dict[str, str]:
    """The members of an object, each value as it is written."""
    return {key: bytes(value).decode() for key, value in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items()}
