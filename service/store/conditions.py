"""Conditions of a request on the state of a session (RFC 9110, 13.1)."""

from typing import Final, NamedTuple

from service.errors import PreconditionFailed

_FAILED = {
    "If-Match": "If-Match does not hold: no ETag in it matches the session",
    "If-None-Match": "If-None-Match does not hold: an ETag in it matches the session",
}


class ETags(NamedTuple):
    """The ETags of one condition, without quotes; with `any`, every state (`*`).

    Invariant: a tag consists of digits and hyphens, as every ETag of a session does; no other tag can match.
    """

    tags: frozenset[str] = frozenset()
    any: bool = False

    def match(self, etag: str) -> bool:
        """Whether the condition names the state with `etag`."""
        return self.any or etag in self.tags

    def encode(self) -> str:
        """As scripts take it: `*`, or the ETags with a comma before, between and after them."""
        return "*" if self.any else f",{','.join(sorted(self.tags))},"


class Conditions(NamedTuple):
    """If-Match and If-None-Match of one request; None if the request has no such header."""

    if_match: ETags | None = None
    if_none_match: ETags | None = None

    def encode(self) -> str:
        """As scripts take it: "" for no condition, else If-Match, "|", If-None-Match, with "" for an absent one."""
        if self.if_match is None and self.if_none_match is None:
            return ""
        return "|".join("" if tags is None else tags.encode() for tags in (self.if_match, self.if_none_match))

    def matches(self, etag: str) -> bool:
        """Whether If-Match holds for the state with `etag` of a session that exists."""
        return self.if_match is None or self.if_match.match(etag)

    def check_match(self, etag: str) -> None:
        """Check If-Match against the state of a session that exists.

        Raises:
            PreconditionFailed: it does not hold.
        """
        if not self.matches(etag):
            raise precondition_failed("If-Match")

    def check_absent(self) -> None:
        """Check the conditions if there is no session: then If-Match fails, and If-None-Match holds.

        Raises:
            PreconditionFailed: there is an If-Match.
        """
        if self.if_match is not None:
            raise precondition_failed("If-Match")

    def excludes(self, etag: str) -> bool:
        """Whether If-None-Match names the state with `etag`: the response is then 304 for a read, else 412."""
        return self.if_none_match is not None and self.if_none_match.match(etag)


UNCONDITIONAL: Final = Conditions()


def precondition_failed(header: str) -> PreconditionFailed:
    """The error for a condition that fails; `header` is If-Match or If-None-Match."""
    return PreconditionFailed(_FAILED[header])
