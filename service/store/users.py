"""Users of one project. A user exists from the first session that names them until they are deleted."""

import asyncio
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID, uuid5

from service.configs.limits import Limits
from service.configs.terms import user_term
from service.errors import BadRequest, StoreUnavailable, UserNotFound, WriteUncertain
from service.redis_client.client import checked
from service.store import keys, script_calls
from service.store.cursors import encode_user_cursor
from service.store.listing import Query, iter_matches
from service.store.scripts import run_many
from service.store.sessions import Sessions

#: Expired sessions per partition, not swept yet, that a count leaves out; it may include any beyond them.
MAX_EXPIRED = 1000


@dataclass(frozen=True, slots=True)
class User:
    """A user; `created_at` is microseconds since 1970. Users never change, so it is their updated_at too."""

    identifier: str
    created_at: int


@lru_cache(maxsize=4096)
def user_id(project_id: str, identifier: str) -> str:
    """The id of a user: the UUIDv5 (RFC 9562) of the identifier in the project's namespace."""
    return str(uuid5(UUID(project_id), identifier))


def check_identifier(identifier: str, limits: Limits) -> None:
    """Refuse text that cannot identify a user.

    Raises:
        BadRequest: it is longer than the limit, or contains control characters.
    """
    if len(identifier.encode()) > limits.max_user_bytes:
        raise BadRequest(f"user is longer than {limits.max_user_bytes} bytes")
    if any(unicodedata.category(character) == "Cc" for character in identifier):
        raise BadRequest("user must not contain control characters")


@dataclass(frozen=True)
class Users:
    """The users of the project of `sessions`."""

    sessions: Sessions

    @property
    def _users_key(self) -> str:
        return keys.users_key(self.sessions.project.slug)

    async def page(self, *, limit: int, after: int | None, descending: bool) -> tuple[list[User], str | None]:
        """At most `limit` users after `after` (created_at, microseconds), in order of created_at, and the next cursor."""
        command, first, last = ("ZREVRANGEBYSCORE", "+inf", "-inf") if descending else ("ZRANGEBYSCORE", "-inf", "+inf")
        start = first if after is None else f"({after}"
        flat = await self.sessions.redis.call(command, self._users_key, start, last, "WITHSCORES", "LIMIT", 0, limit + 1)
        users = [User(name.decode(errors="replace"), int(float(at))) for name, at in zip(flat[::2], flat[1::2], strict=True)]
        if len(users) > limit:
            return users[:limit], encode_user_cursor(users[limit - 1].created_at)
        return users, None

    async def count_sessions(self, identifier: str) -> int:
        """The number of sessions that the user has.

        If more than `MAX_EXPIRED` expired sessions of a partition wait for the sweep, the count may include some of them.

        Raises:
            UserNotFound: there is no such user.
        """
        redis, term = self.sessions.redis, user_term(identifier)
        calls = [
            script_calls.count_sessions(
                expiring=partition.expiring,
                prefix=partition.prefix,
                block_size=partition.block_size,
                term=term,
                max_expired=MAX_EXPIRED,
            )
            for partition in self.sessions.all_partitions
        ]
        created_at, counts = await asyncio.gather(
            redis.call("ZSCORE", self._users_key, identifier), run_many(redis, calls, writes=False)
        )
        if created_at is None:
            raise UserNotFound
        return sum(counts)

    async def delete(self, identifier: str) -> None:
        """Delete the user and all their sessions; deleting an unknown user does nothing.

        The user's entry is removed last, so that an interrupted deletion can be repeated. It is restored if a session of the
        user was created meanwhile.

        Raises:
            StoreUnavailable: Redis is unavailable, and nothing was deleted.
            WriteUncertain: Redis is unavailable, and part of it may have been deleted.
        """
        redis, blocks = self.sessions.redis, [each.blocks(user_term(identifier)) for each in self.sessions.all_partitions]
        has_deleted = False
        try:
            async for batch in iter_matches(self.sessions, Query(user=identifier), with_expired=True):
                has_deleted = has_deleted or bool(batch)
                await self.sessions.delete_many([session.id for session in batch], user=identifier)
            await self.sessions.registration.remove(identifier)
            has_deleted = True
            if any(checked(await redis.batch([("EXISTS", key) for key in blocks]))):
                await self.sessions.registration.register(identifier)
        except StoreUnavailable as error:
            if has_deleted:
                raise WriteUncertain from error
            raise
