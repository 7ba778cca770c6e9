"""Users of one project. A user is known from the first session that names them, until they are deleted."""

import asyncio
import base64
import binascii
import unicodedata
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from uuid import UUID, uuid5

from service.configs.limits import Limits
from service.configs.terms import user_term
from service.errors import (
    BadRequest,
    NotReplicated,
    ProjectFull,
    SessionNotFound,
    StoreDamaged,
    StoreUnavailable,
    Unauthorized,
    Unreadable,
    UserNotFound,
    WriteUncertain,
)
from service.redis_client.client import checked
from service.store import keys, listing, scripts
from service.store.listing import Query
from service.store.sessions import Project, Sessions

REGISTER_USER = scripts.load("register_user")
EXPECT_USER = scripts.load("expect_user")
WITHDRAW_USER = scripts.load("withdraw_user")
COUNT_SESSIONS = scripts.load("count_sessions")
DELETE_USER = scripts.load("delete_user")

#: Expired sessions of a partition, not swept yet, that a count leaves out; beyond them it may include some.
MAX_DUE = 1000


@dataclass(frozen=True, slots=True)
class User:
    """A user; `created_at` is microseconds since 1970. Users are never changed, so it is their updated_at too."""

    identifier: str
    created_at: int


@lru_cache(maxsize=4096)
def user_id(project_id: str, identifier: str) -> str:
    """The id of a user: the UUIDv5 (RFC 9562) of the identifier in the project's namespace."""
    return str(uuid5(UUID(project_id), identifier))


def check_identifier(identifier: str, limits: Limits) -> None:
    """Refuse what cannot be a user's identifier.

    Raises:
        BadRequest: longer than the limit, or with control characters.
    """
    if len(identifier.encode()) > limits.max_user_bytes:
        raise BadRequest(f"user is longer than {limits.max_user_bytes} bytes")
    if any(unicodedata.category(character) == "Cc" for character in identifier):
        raise BadRequest("user has control characters")


@dataclass(frozen=True)
class Users:
    """The users of the project of `sessions`."""

    sessions: Sessions
    #: Users that this object has registered for a session that exists.
    _known: set[str] = field(default_factory=set)

    @property
    def _project(self) -> Project:
        return self.sessions.project

    @property
    def _key(self) -> str:
        return keys.users_key(self._project.slug)

    @property
    def _keys(self) -> tuple[str, str, str]:
        """What every script on users takes: the users, those expected, and the project's record, which says whose they are."""
        slug = self._project.slug
        return self._key, keys.expected_users_key(slug), keys.project_key(slug)

    async def expect(self, identifier: str, wanted_id: str) -> int | None:
        """Register the user of a session before the session is created: no crash leaves a session whose user is not listed.

        `wanted_id` is the id that the session shall have, "" for a new one: if it is in use, the request is ignored, and its
        user with it. A user whom this object has registered is assumed to exist still; `confirm` registers them again.

        Returns:
            Where the user has no session yet: their created_at, with which `withdraw` takes the registration back.

        Raises:
            ProjectFull: the user is new, and the project has as many users as it may have.
        """
        if identifier in self._known or (wanted_id and await self._exists(wanted_id)):
            return None
        max_users = self.sessions.limits.max_users
        reply = await EXPECT_USER.run(self.sessions.redis, self._keys, (self._project.id, identifier, max_users))
        if reply[0] == b"too_many_users":
            raise ProjectFull("max_users", max_users)
        return int(reply[1]) if reply[0] == b"expected" else None

    async def withdraw(self, identifier: str, created_at: int) -> None:
        """Take back one `expect` whose session was not created; the last one removes the user.

        A user stays where a session of theirs was created, or a crash left open whether it was. Best effort: if Redis is away,
        the user stays too.
        """
        with suppress(StoreUnavailable, StoreDamaged, Unauthorized):
            await WITHDRAW_USER.run(self.sessions.redis, self._keys, (self._project.id, identifier, created_at))

    async def confirm(self, identifier: str) -> None:
        """Register the user of a session that was created, in case a deletion came in between.

        Raises:
            WriteUncertain: Redis is away; the session is there.
        """
        try:
            await self.register(identifier)
        except NotReplicated:
            raise
        except StoreUnavailable as error:
            raise WriteUncertain from error

    async def register(self, identifier: str) -> None:
        """Register the user, who may be registered already."""
        await REGISTER_USER.run(self.sessions.redis, self._keys, (self._project.id, identifier))
        self._known.add(identifier)

    async def _exists(self, session_id: str) -> bool:
        try:
            await self.sessions.get(session_id)
        except SessionNotFound:
            return False
        except Unreadable:
            pass
        return True

    async def page(self, *, limit: int, after: int | None, descending: bool) -> tuple[list[User], str | None]:
        """At most `limit` users after `after`, in the order of created_at, and the cursor to the next page."""
        command, first, last = ("ZREVRANGEBYSCORE", "+inf", "-inf") if descending else ("ZRANGEBYSCORE", "-inf", "+inf")
        start = first if after is None else f"({after}"
        flat = await self.sessions.redis.call(command, self._key, start, last, "WITHSCORES", "LIMIT", 0, limit + 1)
        users = [User(name.decode(errors="replace"), int(float(at))) for name, at in zip(flat[::2], flat[1::2], strict=True)]
        if len(users) > limit:
            return users[:limit], encode_cursor(users[limit - 1].created_at)
        return users, None

    async def count_sessions(self, identifier: str) -> int:
        """How many sessions the user has.

        Where more than `MAX_DUE` expired sessions of a partition wait for the sweep, some of them may be counted.

        Raises:
            UserNotFound: there is no such user.
        """
        redis, term = self.sessions.redis, user_term(identifier)
        partitions = self.sessions.all_partitions
        calls = [((partition.expiring,), (partition.prefix, partition.block_size, term, MAX_DUE)) for partition in partitions]
        known, counts = await asyncio.gather(
            redis.call("ZSCORE", self._key, identifier), COUNT_SESSIONS.run_many(redis, calls, writes=False)
        )
        if known is None:
            raise UserNotFound
        return sum(counts)

    async def delete(self, identifier: str) -> None:
        """Delete the user and all their sessions; an unknown user is none to delete.

        The record goes last, so that a deletion that breaks off can be done again, and comes back where a session of theirs was
        created meanwhile.

        Raises:
            StoreUnavailable: Redis is away, and nothing was deleted.
            WriteUncertain: Redis is away, and some of it may have been deleted.
        """
        redis, blocks = self.sessions.redis, [each.blocks(user_term(identifier)) for each in self.sessions.all_partitions]
        is_begun = False
        try:
            async for batch in listing.iter_matches(self.sessions, Query(user=identifier), with_expired=True):
                is_begun = is_begun or bool(batch)
                await self.sessions.delete_many([session.id for session in batch], user=identifier)
            self._known.discard(identifier)
            await DELETE_USER.run(redis, self._keys, (self._project.id, identifier))
            is_begun = True
            if any(checked(await redis.batch([("EXISTS", key) for key in blocks]))):
                await self.register(identifier)
        except StoreUnavailable as error:
            if is_begun:
                raise WriteUncertain from error
            raise


def encode_cursor(created_at: int) -> str:
    """A cursor to the users after `created_at` (microseconds)."""
    return base64.urlsafe_b64encode(f"u{created_at}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    """The created_at (microseconds) in a cursor that `encode_cursor` made.

    Raises:
        BadRequest: it is none.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    if not text.startswith("u") or not text[1:].isdigit() or len(text) > 17:
        raise BadRequest("cursor is not one that this list gave")
    return int(text[1:])
