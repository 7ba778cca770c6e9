"""The registration of users around the creation of their sessions, for the other modules of the store.

A crash must not leave a session whose user is not listed. So the user is registered before the session is created (`expect`),
withdrawn if no session was created, and registered again afterwards (`confirm`), in case the user was deleted meanwhile.
"""

from contextlib import suppress

from service.configs.limits import Limits
from service.errors import NotReplicated, StoreDamaged, StoreUnavailable, Unauthorized, WriteUncertain
from service.redis_client.client import RedisClient
from service.store import keys, script_calls
from service.store.record import Project
from service.store.script_calls import UserKeys


class UserRegistration:
    """Registers the users of one project."""

    def __init__(self, redis: RedisClient, project: Project, limits: Limits) -> None:
        slug = project.slug
        self._redis = redis
        self._project = project
        self._limits = limits
        self._keys = UserKeys(keys.users_key(slug), keys.expected_users_key(slug), keys.project_key(slug))
        # Users that this object registered for a session that exists.
        self._registered: set[str] = set()

    def is_registered(self, identifier: str) -> bool:
        """Whether this object registered the user. Another server may have deleted it since; `confirm` restores it."""
        return identifier in self._registered

    async def expect(self, identifier: str) -> int | None:
        """Register a user before their session is created.

        Returns:
            The user's created_at, which `withdraw` needs; None if the user has a session already.

        Raises:
            ProjectFull: the user is new, and the project has its maximum of users.
        """
        call = script_calls.expect_user(
            keys=self._keys, project_id=self._project.id, identifier=identifier, max_users=self._limits.max_users
        )
        reply = await call.run(self._redis)
        reply.raise_for_status(self._limits)
        return int(reply.values[0]) if reply.status == b"expected" else None

    async def withdraw(self, identifier: str, created_at: int) -> None:
        """Undo one `expect` whose session was not created; the last one removes the user.

        The user stays if a session of theirs was created, or if a crash left that open. Best effort: the user also stays if
        Redis is unavailable.
        """
        with suppress(StoreUnavailable, StoreDamaged, Unauthorized):
            await script_calls.withdraw_user(
                keys=self._keys, project_id=self._project.id, identifier=identifier, created_at=created_at
            ).run(self._redis)

    async def confirm(self, identifier: str) -> None:
        """Register the user of a session that was created, in case the user was deleted meanwhile.

        Raises:
            WriteUncertain: Redis is unavailable; the session exists.
        """
        try:
            await self.register(identifier)
        except NotReplicated:
            raise
        except StoreUnavailable as error:
            raise WriteUncertain from error

    async def register(self, identifier: str) -> None:
        """Register the user, unless it is registered."""
        call = script_calls.register_user(keys=self._keys, project_id=self._project.id, identifier=identifier)
        await call.run(self._redis)
        self._registered.add(identifier)

    async def remove(self, identifier: str) -> None:
        """Remove the user from the project's users."""
        self._registered.discard(identifier)
        call = script_calls.delete_user(keys=self._keys, project_id=self._project.id, identifier=identifier)
        await call.run(self._redis)
