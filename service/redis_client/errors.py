"""The errors of this client, and those of redis-py that the modules above need: they do not import `redis` themselves.

RequestFailed                  no replies; says whether Redis may have seen the commands
├── TooManyInFlight            too much is in flight on this connection; nothing was sent
├── Unreachable                no connection could be made
├── ConnectionLost             the connection was lost
├── Closed                     the client was closed before the call
├── TimedOut                   no reply in time
├── TooFewReplicas             Redis executed the commands, but too few replicas acknowledged them in time
└── NoRoute                    no server is known for the command; nothing was sent
    ├── UnknownMaster          the Sentinels know no master by this name
    ├── NoMaster               the server that the Sentinels name says that it is no master
    └── SlotsUnassigned        no node of the cluster serves the slot
WrongType                      a key has another type than its name says
"""

from redis.exceptions import NoScriptError, RedisError, ResponseError

from service.errors import StoreDamaged, WriteUncertain

__all__ = [
    "Closed",
    "ConnectionLost",
    "NoMaster",
    "NoRoute",
    "NoScriptError",
    "RedisError",
    "RequestFailed",
    "ResponseError",
    "SlotsUnassigned",
    "TimedOut",
    "TooFewReplicas",
    "TooManyInFlight",
    "UnknownMaster",
    "Unreachable",
    "WrongType",
]


class RequestFailed(Exception):
    """A call got no replies. `sent` says whether Redis may have seen its commands."""

    def __init__(self, *, sent: bool) -> None:
        self.sent = sent
        super().__init__("Redis may have seen the commands" if sent else "nothing was sent")


class TooManyInFlight(RequestFailed):
    """The connection has as many commands or bytes in flight as it may."""


class Unreachable(RequestFailed):
    """No connection could be made."""


class ConnectionLost(RequestFailed):
    """The connection was lost before all replies had arrived."""


class Closed(RequestFailed):
    """The client was closed before the call."""


class TimedOut(RequestFailed):
    """No reply arrived before the deadline of the call."""


class TooFewReplicas(RequestFailed):
    """Redis executed the commands, but fewer replicas than `min_replicas` acknowledged them in time."""


class NoRoute(RequestFailed):
    """No server is known for the command."""

    def __init__(self) -> None:
        super().__init__(sent=False)


class UnknownMaster(NoRoute):
    """The Sentinels answer, but know no master by the name in the URL."""


class NoMaster(NoRoute):
    """The server that the Sentinels name says in its ROLE that it is not a master."""


class SlotsUnassigned(NoRoute):
    """No node of the cluster serves the slot."""


class WrongType(StoreDamaged, ResponseError):
    """A key has another type than its name says, after a manual edit of the store.

    `text` is Redis's error without anything that it may quote. `is_uncertain`: a script may have written before it failed.
    """

    def __init__(self, text: str, *, is_uncertain: bool) -> None:
        super().__init__(detail=WriteUncertain.detail_text if is_uncertain else None, may_pass=False)
        if is_uncertain:
            self.reason = WriteUncertain.reason
        self.text = text

    def __str__(self) -> str:
        return self.text
