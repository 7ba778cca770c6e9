"""The tree of errors: each knows the HTTP status and the sentence it is answered with.

    ServiceError                500  never meant for a client; a defect
    ├── BadRequest              400
    ├── Unauthorized            401
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── RequestTimeout          408  the client was too slow with its request
    ├── Unreadable              409  the stored configs were damaged by hand
    ├── PreconditionFailed      412
    ├── TooLarge                413
    ├── UnsupportedMediaType    415
    ├── ExpectationFailed       417
    ├── FilterTooExpensive      422  one session alone costs more comparisons than a list may make
    ├── TooManyRequests         429  the key has used up its rate
    ├── Overloaded              503  the worker has as much in hand as it may
    │   └── ClientGone          503  the client has disconnected; nobody reads the answer
    ├── StoreUnavailable        503  nothing was written
    │   ├── WriteUncertain      503  a write that may or may not have happened
    │   └── NotReplicated       503  a write that has happened, but is not on as many replicas as promised
    ├── OutputError                  the command line ends with the sentence and status 1
    └── StartupError                 the same
"""

from collections.abc import Iterable


class ServiceError(Exception):
    """Base of all errors of this service.

    `status` is an HTTP status; `message` one plain sentence that is safe to show a client; `detail` adds to it where a client
    can act on more (the envelope's `error`).
    """

    status = 500
    message = "internal error"

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self.message = message or type(self).message
        self.detail = detail
        super().__init__(self.message)


class BadRequest(ServiceError):
    """The request cannot be understood as the contract describes it."""

    status = 400
    message = "parameter error"


class Unauthorized(ServiceError):
    """The key is missing, malformed, unknown or revoked."""

    status = 401
    message = "Unauthorized"


class NotFound(ServiceError):
    """What the path names is not there, or belongs to another project."""

    status = 404
    message = "not found"


class MethodNotAllowed(ServiceError):
    """The route exists, the method does not; `allowed` are those that do."""

    status = 405
    message = "method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"method not allowed; this path takes {self.allowed}")


class RequestTimeout(ServiceError):
    """The rest of a request did not come; the connection is closed."""

    status = 408
    message = "the request did not come to its end in time"


class Unreadable(ServiceError):
    """The stored configs are not JSON any more: somebody edited them by hand."""

    status = 409
    message = "the stored configs of this session are not readable; PUT replaces them"


class PreconditionFailed(ServiceError):
    """If-Match does not hold for the session as it is."""

    status = 412
    message = "If-Match does not hold: the session is not in the state that the ETag names"


class TooLarge(ServiceError):
    """A limit on size or number was passed; nothing was changed."""

    status = 413
    message = "too large"


class UnsupportedMediaType(ServiceError):
    """The body is of a media type that this route does not take."""

    status = 415
    message = "unsupported media type; send application/json"


class ExpectationFailed(ServiceError):
    """The client waits for something that HTTP does not know."""

    status = 417
    message = "Expect can only be 100-continue"


class FilterTooExpensive(ServiceError):
    """The arrays of one session alone cost more comparisons with the filter than a list may make."""

    status = 422
    reason = "filter_too_expensive"
    message = (
        "comparing filter_by_configs with the arrays of a session takes too many steps; put fewer objects and arrays into the "
        "arrays of the filter, or filter by another key as well"
    )


class TooManyRequests(ServiceError):
    """The key has used up its rate; `retry_after` is the whole seconds until it may ask again."""

    status = 429
    message = "too many requests with this key; slow down"

    def __init__(self, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__()


class Overloaded(ServiceError):
    """The worker has as many requests or connections in hand as it may; nothing was done."""

    status = 503
    message = "the server is busy; try again shortly"
    retry_after = 1  # seconds


class ClientGone(Overloaded):
    """The client has disconnected, or closed its side while much work was still to do; the work stops."""

    message = "the client closed its side of the connection before a long list was ready; keep it open, or ask again"


class StoreUnavailable(ServiceError):
    """Redis cannot be reached, or refuses to work; nothing was written."""

    status = 503
    message = "the store is not available; try again shortly"
    retry_after = 1  # seconds


class WriteUncertain(StoreUnavailable):
    """Redis took a write and gave no answer to it."""

    def __init__(self) -> None:
        super().__init__(detail="the write may or may not have happened")


class NotReplicated(StoreUnavailable):
    """A write was made, and too few replicas have confirmed it in time: a failover may lose it."""

    def __init__(self) -> None:
        super().__init__(detail="the write was made, but not replicated as promised: it may be lost yet")


class OutputError(ServiceError):
    """Standard output is closed or full; the message says why."""


class StartupError(ServiceError):
    """The process cannot start or a command cannot run; the message tells the operator why."""
