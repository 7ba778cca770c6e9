"""What one client does: random operations, one after another."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.soak.client import Client, Unavailable
from tests.soak.context import SHORT_TTL
from tests.soak.session_operations import SessionOperations
from tests.soak.shared import SharedOperations, SharedSession
from tests.soak.states import now
from tests.soak.user_operations import UserOperations
from tests.support.http_client import Violation
from tests.support.server import PATIENCE

#: Microseconds; a longer lifetime ends after the soak.
SHORT = (SHORT_TTL + 60) * 1_000_000


class Work:
    """The operations of one client, and how often each is chosen."""

    def __init__(self, client: Client, shared: list[SharedSession]) -> None:
        self.client = client
        self.sessions, self.users, self.shared = (
            SessionOperations(client),
            UserOperations(client),
            SharedOperations(client, shared),
        )
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[None]]]] = {
            "create": (10, self.sessions.create),
            "copy": (4, self.sessions.copy),
            "PUT": (8, self.sessions.put),
            "PATCH": (20, self.sessions.patch),
            "GET": (20, self.sessions.read),
            "DELETE": (5, self.sessions.delete),
            "GET of what was indeterminate": (10, self.sessions.settle),
            "list": (8, self.users.list_sessions),
            "list of users": (2, self.users.list_users),
            "resources of a user": (3, self.users.count),
            "DELETE of a user": (1, self.users.delete),
            "shared PATCH": (6, self.shared.patch),
            "shared GET": (3, self.shared.read),
            "shared count": (3, self.shared.count_up),
            "shared list": (2, self.shared.find),
            "project GET": (1, self.shared.read_project),
            "project PATCH": (2, self.shared.patch_project),
            "default lifetime": (1, self.shared.change_default),
        }

    async def run(self, ended: asyncio.Event) -> None:
        """Operations until `ended`."""
        names, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        while not ended.is_set():
            name, before = self.client.random.choices(names, weights)[0], self.client.requests
            try:
                await self._kinds[name][1]()
                # An operation without a suitable session sends nothing.
                if self.client.requests > before:
                    self.client.context.stats.done[name] += 1
            except Unavailable:
                await asyncio.sleep(self.client.random.uniform(0.05, 0.3))
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Read all that is indeterminate, once a read can determine it, and wait until short lifetimes end.

        Raises:
            Violation: it is in no possible state, or cannot be read.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise Violation(f"client {self.client.number} has indeterminate sessions or users that cannot be read")
            try:
                await self.sessions.settle()
                await self.users.settle()
                await self.shared.settle()
            except Unavailable:
                pass
            await asyncio.sleep(0.01)

    def _is_settled(self) -> bool:
        client, moment = self.client, now()
        has_settled = client.context.fault_windows.has_settled
        # Short lifetimes are over, those of orphans too.
        expiring = [
            state.expires.end for session in client.sessions.values() for state in session.states if state and state.expires
        ]
        return (
            all(session.indeterminate_since is None for session in client.sessions.values())
            and all(user.indeterminate_since is None for user in client.users.values())
            and self.shared.is_certain
            and all(has_settled((orphan.indeterminate_since or 0.0) + SHORT_TTL) for orphan in client.orphans)
            and not any(moment <= end <= moment + SHORT for end in expiring)
        )
