"""Which server a command goes to: what the client needs from `standalone`, `cluster` and `sentinel` alike."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from service.redis_client.errors import NoRoute
from service.redis_client.multiplexer import Command
from service.redis_client.node import Sender
from service.redis_client.url import Endpoint

#: Where to run a command that has no key of its own: on the server of this key, or of this slot of a cluster.
Target = str | int

#: How one attempt at a command ended: the reply, an error that Redis replied, or a `RequestFailed`; None before the first.
Outcome = object


class Route(Protocol):
    """How to reach a server: a `Node`, or a wrapper around one."""

    @property
    def reads(self) -> Sender:
        """For commands that write nothing."""

    @property
    def writes(self) -> Sender:
        """For all others."""


class Topology(Protocol):
    """The servers of a store, as far as the client knows them. `near` gives the server of a command without a key."""

    @property
    def backoff(self) -> Iterable[float]:
        """Seconds to wait before each retry of a call; it ends where the retries do."""

    def route(self, command: Command, near: Target | None) -> Route:
        """The route of a command.

        Raises:
            NoRoute: no server is known for it.
        """

    def endpoint(self, near: Target) -> Endpoint | None:
        """The server that `near` means, None if it is on a Unix socket; raises as `route` does."""

    def routes(
        self, commands: Sequence[Command], near: Target | None, last: Sequence[Outcome]
    ) -> Iterable[tuple[Route | NoRoute, Sequence[int]]]:
        """The routes of all commands, each with the indexes of its commands; `last` has the last outcome of each command."""

    def is_retryable(self, outcome: Outcome) -> bool:
        """Whether another attempt may succeed, given that the last one changed nothing."""

    async def refresh(self, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Update the routes before a retry, in at most `seconds`; `outcomes` are those of the commands to be retried."""

    def refresh_soon(self) -> None:
        """Update the routes in the background, because a server does not answer."""

    def slots(self) -> list[int]:
        """One slot of every known master. A topology without slots has one master and returns [0]."""

    async def close(self) -> None:
        """Close all connections for good; calls in flight fail. Returns when they are closed."""
