"""What one client does: one operation after another, chosen at random."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.session_operations import SessionOperations
from tests.soak.shared import SharedOperations, SharedSession
from tests.soak.states import now
from tests.soak.user_operations import UserOperations
from tests.soak.wire import Unavailable
from tests.soak.world import SHORT_TTL

Operation = Callable[[], Awaitable[None]]

#: Seconds in which nothing must be in doubt any more, at the end.
PATIENCE = 60.0
#: Microseconds; a lifetime that lasts longer than this outlasts what is left of the soak.
SHORT = (SHORT_TTL + 60) * 1_000_000


class Work:
    """One client's."""

    def __init__(self, client: Client, shared: list[SharedSession]) -> None:
        self.client = client
        self.own, self.users, self.shared = SessionOperations(client), UserOperations(client), SharedOperations(client, shared)
        #: Each kind of operation, and how often it is chosen.
        self._kinds: dict[str, tuple[int, Operation]] = {
            "create": (10, self.own.create),
            "copy": (4, self.own.copy),
            "PUT": (8, self.own.put),
            "PATCH": (20, self.own.patch),
            "GET": (20, self.own.read),
            "DELETE": (5, self.own.delete),
            "GET of what was in doubt": (10, self.own.settle),
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
                # One that finds nothing to do asks nothing.
                if self.client.requests > before:
                    self.client.world.tally.done[name] += 1
            except Unavailable:
                await asyncio.sleep(self.client.random.uniform(0.05, 0.3))
            await asyncio.sleep(0)

    async def settle(self) -> None:
        """Read all that is in doubt, once that can tell, and let short lifetimes end.

        Raises:
            Difference: it is not as it may be, or not to be read.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._is_settled():
            if time.monotonic() > deadline:
                raise Difference(f"client {self.client.number} has sessions or users in doubt that cannot be read")
            try:
                await self.own.settle()
                await self.users.settle()
                await self.shared.settle()
            except Unavailable:
                pass
            await asyncio.sleep(0.01)

    def _is_settled(self) -> bool:
        client, moment = self.client, now()
        has_settled = client.world.weather.has_settled
        # Short lifetimes are over, those of sessions that nobody told of too.
        dying = [state.dies.end for session in client.sessions.values() for state in session.states if state and state.dies]
        return (
            all(session.doubted is None for session in client.sessions.values())
            and all(user.doubted is None for user in client.users.values())
            and self.shared.is_certain
            and all(has_settled((stray.doubted or 0.0) + SHORT_TTL) for stray in client.strays)
            and not any(moment <= end <= moment + SHORT for end in dying)
        )
