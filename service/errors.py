"""The tree of errors: each knows the HTTP status, the reason (a word for programs) and the sentence it is answered with.

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
├── Unreadable              409  the stored configs were damaged by hand
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
├── Overloaded              503  the worker has as much in hand as it may
│   └── ClientGone          503  the client has disconnected; nobody reads the answer
├── StoreUnavailable        503  nothing was written
│   ├── StoreFull           503  Redis is out of memory; nothing was written
│   │   └── ProjectFull     503  the project has as many sessions or users as it may have; nothing was written
│   ├── LayoutChanged       503  the store was moved to another number of partitions; nothing was written
│   ├── StoreEmpty          503  Redis has lost the store, or somebody has emptied it
│   ├── WriteUncertain      503  a write that may or may not have happened
│   ├── StoreDamaged        503  a key was overwritten by hand; `check --repair` rebuilds what follows from other keys
│   │   └── StateIncomplete 503  a partition or project does not say whose it is; nothing was written
│   └── NotReplicated       503  a write that has happened, but is not on as many replicas as promised
├── OutputError                  the command line ends with the sentence and status 1
└── StartupError                 the same
"""

from collections.abc import Iterable, Iterator


class ServiceError(Exception):
    """Base of all errors of this service.

    `status` is an HTTP status; `reason` a word for programs, which never changes; `message` one plain sentence that is safe to
    show a client; `detail` adds to it where a client can act on more (the envelope's `error`).
    """

    status = 500
    reason = "internal"
    message = "internal error"

    def __init__(self, message: str | None = None, *, detail: str | None = None) -> None:
        self.message = message or type(self).message
        self.detail = detail
        super().__init__(self.message)


class BadRequest(ServiceError):
    """The request cannot be understood as the contract describes it."""

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
    message = "there is no such route"


class ProjectNotFound(NotFound):
    """The store has no project with this name; only commands name projects."""

    def __init__(self, slug: str) -> None:
        super().__init__(f"there is no project {slug}")


class MethodNotAllowed(ServiceError):
    """The route exists, the method does not; `allowed` are those that do."""

    status = 405
    reason = "method_not_allowed"
    message = "method not allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"method not allowed; this path takes {self.allowed}")


class RequestTimeout(ServiceError):
    """The rest of a request did not come; the connection is closed."""

    status = 408
    reason = "request_timeout"
    message = "the request did not come to its end in time"


class Unreadable(ServiceError):
    """The stored configs are not JSON any more: somebody edited them by hand."""

    status = 409
    reason = "stored_configs_corrupt"
    message = "the stored configs of this session are not readable; PUT replaces them"


class PreconditionFailed(ServiceError):
    """If-Match or If-None-Match does not hold for the session as it is."""

    status = 412
    reason = "precondition_failed"
    message = "If-Match or If-None-Match does not hold for the state that the session is in"


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
    """The target of the request line is over the limit; nothing of the request was read."""

    status = 414
    reason = "uri_too_long"
    message = "the request line is too long; send a shorter filter_by_configs"


class UnsupportedMediaType(ServiceError):
    """The body is of a media type that this route does not take."""

    status = 415
    reason = "unsupported_media_type"
    message = "unsupported media type; send application/json"


class UnsupportedContentCoding(ServiceError):
    """The body has a Content-Encoding; the service inflates nothing."""

    status = 415
    reason = "unsupported_content_coding"
    message = "Content-Encoding must be identity: send the body uncompressed"


class ExpectationFailed(ServiceError):
    """The client waits for something that HTTP does not know."""

    status = 417
    reason = "expectation_failed"
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
    reason = "rate_limited"
    message = "too many requests with this key; slow down"

    def __init__(self, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__()


class HeadTooLarge(ServiceError):
    """The headers of a request are over a limit; nothing of the request was done."""

    status = 431
    reason = "head_too_large"
    message = "the headers of the request are too large"


class NotServed(ServiceError):
    """A call of Acontext that this service does not implement; `noun` names what it is about, e.g. `messages`."""

    status = 501
    reason = "not_implemented"
    message = "this call is not part of this service"

    def __init__(self, noun: str, *, plural: bool) -> None:
        verb, pronoun = ("are", "them") if plural else ("is", "it")
        super().__init__(
            f"{noun} {verb} not part of this service: it keeps sessions and their configs;"
            f" call an Acontext server for {pronoun}"
        )


class Overloaded(ServiceError):
    """The worker has as many requests or connections in hand as it may; nothing was done."""

    status = 503
    reason = "overloaded"
    message = "the server is busy; try again shortly"
    retry_after = 1  # seconds


class ClientGone(Overloaded):
    """The client has disconnected, or closed its side while much work was still to do; the work stops."""

    message = "the client closed its side of the connection before a long list was ready; keep it open, or ask again"


class StoreUnavailable(ServiceError):
    """Redis cannot be reached, or refuses to work; nothing was written.

    `diagnosis` is a sentence for the operator; it is never part of an answer. `may_pass` tells whether waiting may help.
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
    """Redis is out of memory and refuses what would need more; nothing was written."""

    reason = "store_full"
    message = "the store is out of memory; try again later"


class ProjectFull(StoreFull):
    """The project has as many sessions or users as it may have; nothing was written."""

    message = "the project has as many sessions or users as it may have; delete some first"
    retry_after = 60  # seconds; it stays so until some are deleted or expire

    def __init__(self, limit: str, most: int) -> None:
        """`limit` is the name of the setting, `most` its value."""
        what = limit.removeprefix("max_")
        super().__init__(f"the project has {most} {what}, the most it may have ({limit}); delete some first")


class LayoutChanged(StoreUnavailable):
    """The store has another number of partitions than the server was started with, or is being moved to one."""

    message = "the store has been moved to another number of partitions; try again shortly"


class StoreEmpty(StoreUnavailable):
    """Redis has no store any more: somebody emptied it, or it was restarted without its file. Nothing was written."""

    reason = "store_empty"
    message = "the store is empty: its data was removed or lost"

    def __init__(self) -> None:
        super().__init__(
            diagnosis="Redis holds no store any more: it was emptied, or restarted without its file; "
            "restore its data, or restart the servers to begin a new store"
        )


class WriteUncertain(StoreUnavailable):
    """Redis took a write and gave no answer to it, or failed in the middle of it."""

    reason = "write_uncertain"
    detail_text = "the write may or may not have happened"

    def __init__(self, *, diagnosis: str = "", may_pass: bool = True) -> None:
        super().__init__(detail=self.detail_text, diagnosis=diagnosis, may_pass=may_pass)


class NotReplicated(StoreUnavailable):
    """A write was made, and too few replicas have confirmed it in time: a failover may lose it."""

    reason = "not_replicated"

    def __init__(self, *, diagnosis: str = "", may_pass: bool = True) -> None:
        super().__init__(
            detail="the write was made, but not replicated as promised: it may be lost yet",
            diagnosis=diagnosis,
            may_pass=may_pass,
        )


class StoreDamaged(StoreUnavailable):
    """A key of the store has the wrong type: somebody wrote it by hand. It stays so until an operator repairs it."""

    message = "the store is damaged where this request reads or writes it; an operator can repair it with check --repair"
    retry_after = 60  # seconds


class StateIncomplete(StoreDamaged):
    """The state of a partition, or the record of a project, does not say whose it is; nothing was written."""


class OutputError(ServiceError):
    """Standard output is closed or full; the message says why."""


class StartupError(ServiceError):
    """The process cannot start or a command cannot run; the message tells the operator why."""


def reasons() -> dict[int, tuple[str, ...]]:
    """Every reason that an answer can give, by HTTP status."""
    by_status: dict[int, tuple[str, ...]] = {}
    for error in sorted(_classes(ServiceError), key=lambda error: error.status):
        known = by_status.get(error.status, ())
        if "reason" in vars(error) and error.reason not in known:
            by_status[error.status] = (*known, error.reason)
    return by_status


def _classes(base: type[ServiceError]) -> Iterator[type[ServiceError]]:
    yield base
    for subclass in base.__subclasses__():
        yield from _classes(subclass)
