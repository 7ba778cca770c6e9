"""The tree of errors: each has an HTTP status, a reason (a word for programs) and the sentence for the response.

ServiceError                500  never meant for a client; a defect
├── BadRequest              400
├── Unauthorized            401
├── NotFound                404  only its subclasses are raised
│   ├── SessionNotFound     404
│   ├── UserNotFound        404
│   ├── RouteNotFound       404
│   └── ProjectNotFound          on the command line only
├── MethodNotAllowed        405
├── RequestTimeout          408  the client was too slow with its request
├── Unreadable              409  a manual edit has damaged the stored configs
├── PreconditionFailed      412
├── TooLarge                413  only its subclasses are raised
│   ├── ConfigsTooLarge     413
│   └── BodyTooLarge        413
├── UriTooLong              414
├── UnsupportedMediaType    415
├── UnsupportedContentCoding 415
├── ExpectationFailed       417
├── FilterTooExpensive      422  one session alone costs more comparisons than a list may make
├── TooManyRequests         429  the key has used up its rate
├── HeadTooLarge            431
├── NotServed               501  a call of the API that is not about session configs
├── Overloaded              503  the worker is at its limit of requests or connections
│   └── ClientGone          503  the client has disconnected; nobody reads the response
├── StoreUnavailable        503  nothing was written
│   ├── StoreFull           503  Redis is out of memory; nothing was written
│   │   └── ProjectFull     503  the project has reached its limit of sessions or users; nothing was written
│   ├── LayoutChanged       503  the store was moved to another number of partitions; nothing was written
│   ├── StoreEmpty          503  Redis has lost the store, or was emptied
│   ├── WriteUncertain      503  a write that may or may not have happened
│   ├── StoreDamaged        503  a key was overwritten manually; `check --repair` rebuilds what follows from other keys
│   │   └── StateIncomplete 503  a partition or project has no record of its owner; nothing was written
│   └── NotReplicated       503  a write that has happened, but too few replicas have acknowledged it
├── NothingFound                 of commands over HTTP, which exit with status 3
├── CallRefused                  the same, with status 4
├── ServerUnreachable            the same, with status 5
├── OutputError                  the command prints the sentence and exits with status 1
└── StartupError                 the same
"""

from collections.abc import Iterable, Iterator


class ServiceError(Exception):
    """Base of all errors of this service.

    `status` is an HTTP status; `reason` a word for programs, which never changes; `message` one plain sentence that a client
    may see; `detail` adds what a client can act on (the envelope's `error`).
    """

    status = 500
    reason = "internal"
    message = "internal error"
    #: Of a command that ends with this error; 2 is wrong usage.
    exit_status = 1

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self.message = message or type(self).message
        self.detail = detail
        super().__init__(self.message)


class BadRequest(ServiceError):
    """The request does not follow the contract."""

    status = 400
    reason = "bad_request"
    message = "parameter error"


class Unauthorized(ServiceError):
    """The key is missing, malformed, unknown or revoked."""

    status = 401
    reason = "unauthorized"
    message = "Unauthorized"


class NotFound(ServiceError):
    """Something that a request or a command names does not exist, or belongs to another project."""

    status = 404


class SessionNotFound(NotFound):
    """The project has no session with this id."""

    reason = "session_not_found"
    message = "session not found"


class UserNotFound(NotFound):
    """The project has no user with this identifier."""

    reason = "user_not_found"
    message = "user not found"


class RouteNotFound(NotFound):
    """No route has this path."""

    reason = "route_not_found"
    message = "no such route"


class ProjectNotFound(NotFound):
    """The store has no project with this name; only commands name projects."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is no project {slug}")


class MethodNotAllowed(ServiceError):
    """The route exists, but not for this method; `allowed` lists the methods that it has."""

    status = 405
    reason = "method_not_allowed"
    message = "method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"method not allowed; this path allows {self.allowed}")


class RequestTimeout(ServiceError):
    """The rest of a request did not arrive in time; the connection is closed."""

    status = 408
    reason = "request_timeout"
    message = "timed out waiting for the rest of the request"


class Unreadable(ServiceError):
    """The stored configs are not JSON, after a manual edit."""

    status = 409
    reason = "stored_configs_corrupt"
    message = "this session's stored configs are corrupt; replace them with PUT"


class PreconditionFailed(ServiceError):
    """If-Match or If-None-Match does not hold for the current session."""

    status = 412
    reason = "precondition_failed"
    message = "If-Match or If-None-Match does not hold for the current session"


class TooLarge(ServiceError):
    """A limit on size or number was exceeded; nothing was changed."""

    status = 413


class ConfigsTooLarge(TooLarge):
    """The configs would exceed a limit: bytes, top-level keys or index terms."""

    reason = "configs_too_large"
    message = "the configs are too large"


class BodyTooLarge(TooLarge):
    """The request body exceeds the limit."""

    reason = "body_too_large"
    message = "the body is too large"


class UriTooLong(ServiceError):
    """The request target is over the limit; the request was not read."""

    status = 414
    reason = "uri_too_long"
    message = "the request line is too long; send a shorter filter_by_configs"


class UnsupportedMediaType(ServiceError):
    """This route does not accept the body's media type."""

    status = 415
    reason = "unsupported_media_type"
    message = "unsupported media type; send application/json"


class UnsupportedContentCoding(ServiceError):
    """The body has a Content-Encoding; the service decompresses nothing."""

    status = 415
    reason = "unsupported_content_coding"
    message = "Content-Encoding must be identity: send the body uncompressed"


class ExpectationFailed(ServiceError):
    """The Expect header names something else than 100-continue (RFC 9110, 10.1.1)."""

    status = 417
    reason = "expectation_failed"
    message = "the only supported Expect is 100-continue"


class FilterTooExpensive(ServiceError):
    """Comparing one session's arrays with the filter takes more comparisons than a list may make."""

    status = 422
    reason = "filter_too_expensive"
    message = (
        "comparing filter_by_configs with the arrays of a session takes too many steps; use fewer objects and arrays in the "
        "filter's arrays, or filter by another key as well"
    )


class TooManyRequests(ServiceError):
    """The key has used up its rate; `retry_after` is the number of whole seconds until its next request may succeed."""

    status = 429
    reason = "rate_limited"
    message = "too many requests with this API key; slow down"

    def __init__(self, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__()


class HeadTooLarge(ServiceError):
    """The headers of a request are over a limit; the request had no effect."""

    status = 431
    reason = "head_too_large"
    message = "the request headers are too large"


class NotServed(ServiceError):
    """A call of Acontext that this service does not implement; `noun` names what it is about, e.g. `messages`."""

    status = 501
    reason = "not_implemented"
    message = "this service does not support this call"

    def __init__(self, noun: str, *, plural: bool) -> None:
        verb, pronoun = ("are", "them") if plural else ("is", "it")
        super().__init__(
            f"{noun} {verb} not part of this service: it keeps sessions and their configs;"
            f" call an Acontext server for {pronoun}"
        )


class Overloaded(ServiceError):
    """The worker is at its limit of requests or connections; the request had no effect."""

    status = 503
    reason = "overloaded"
    message = "the server is busy; try again shortly"
    retry_after = 1  # seconds


class ClientGone(Overloaded):
    """The client has disconnected, or closed its side of the connection before its response was ready; the work stops."""

    message = "the client closed its side of the connection before the response was ready; keep it open, or try again"


class StoreUnavailable(ServiceError):
    """Redis cannot be reached, or refuses commands; nothing was written.

    `diagnosis` is a sentence for the operator; no response contains it. `may_pass` is whether waiting may help.
    """

    status = 503
    reason = "store_unavailable"
    message = "the store is not available; try again shortly"
    retry_after = 1  # seconds

    def __init__(
        self, message: str | None = None, *, detail: str | None = None, diagnosis: str = "", may_pass: bool = True
    ) -> None:
        super().__init__(message, detail=detail)
        self.diagnosis = diagnosis
        self.may_pass = may_pass

    def __str__(self) -> str:
        """What an operator reads on the command line."""
        return self.diagnosis or self.message


class StoreFull(StoreUnavailable):
    """Redis is out of memory and refuses the write; nothing was written."""

    reason = "store_full"
    message = "the store is out of memory; try again later"


class ProjectFull(StoreFull):
    """The project has reached its limit of sessions or users; nothing was written."""

    message = "the project has reached its limit of sessions or users; delete some first"
    retry_after = 60  # seconds; until some are deleted or expire, retrying does not help

    def __init__(self, limit: str, maximum: int) -> None:
        """`limit` is the name of the setting, `maximum` its value."""
        super().__init__(f"the project has reached {limit}, {maximum}; delete some {limit.removeprefix('max_')} first")


class LayoutChanged(StoreUnavailable):
    """The store has another number of partitions than the server was started with, or a repartition is in progress."""

    message = "the store has been moved to another number of partitions; try again shortly"


class StoreEmpty(StoreUnavailable):
    """Redis no longer has a store: it was emptied, or restarted without its file. Nothing was written."""

    reason = "store_empty"
    message = "the store is empty: its data was removed or lost"

    def __init__(self) -> None:
        super().__init__(
            diagnosis="Redis no longer has a store: it was emptied, or restarted without its file; "
            "restore its data, or restart the servers to create a new store"
        )


class WriteUncertain(StoreUnavailable):
    """Redis received a write and sent no reply, or failed while executing it."""

    reason = "write_uncertain"
    detail_text = "the write may or may not have happened"

    def __init__(self, *, diagnosis: str = "", may_pass: bool = True) -> None:
        super().__init__(detail=self.detail_text, diagnosis=diagnosis, may_pass=may_pass)


class NotReplicated(StoreUnavailable):
    """A write succeeded, but too few replicas acknowledged it in time: a failover may lose it."""

    reason = "not_replicated"

    def __init__(self, *, diagnosis: str = "", may_pass: bool = True) -> None:
        super().__init__(
            detail="the write succeeded but too few replicas acknowledged it; a failover may lose it",
            diagnosis=diagnosis,
            may_pass=may_pass,
        )


class StoreDamaged(StoreUnavailable):
    """A key of the store has the wrong type, after a manual edit. Only an operator can repair it."""

    message = "a part of the store that this request needs is damaged; an operator can repair it with `check --repair`"
    retry_after = 60  # seconds


class StateIncomplete(StoreDamaged):
    """The state of a partition, or the record of a project, does not name its owner; nothing was written."""


class OutputError(ServiceError):
    """Standard output is closed or full; the message says why."""


class NothingFound(ServiceError):
    """A command over HTTP: there is no such session, or none that matches."""

    exit_status = 3


class CallRefused(ServiceError):
    """A command over HTTP: the server refuses the call; the message is the server's."""

    exit_status = 4


class ServerUnreachable(ServiceError):
    """A command over HTTP: the server does not answer, or cannot work now. Repeating it may help."""

    exit_status = 5


class StartupError(ServiceError):
    """The process cannot start, or a command cannot run; the message gives the operator the reason."""


def reasons() -> dict[int, tuple[str, ...]]:
    """Every reason that a response can give, by HTTP status."""
    by_status: dict[int, tuple[str, ...]] = {}
    for error in sorted(_classes(ServiceError), key=lambda error: error.status):
        words = by_status.get(error.status, ())
        if "reason" in vars(error) and error.reason not in words:
            by_status[error.status] = (*words, error.reason)
    return by_status


def _classes(base: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield base
    for subclass in base.__subclasses__():
        yield from _classes(subclass)
