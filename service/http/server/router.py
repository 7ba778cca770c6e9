"""Finds the handler of a path in the table of routes."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from service.errors import MethodNotAllowed, RouteNotFound, ServiceError

Handler = TypeVar("Handler")

#: Ends the path of a route that stands for everything below it, too.
BELOW = "/**"


class _Route(Generic[Handler]):
    """One path: the segments before and after its `{name}`, if it has one, and a handler for each method."""

    __slots__ = ("head", "methods", "tail")

    def __init__(self, head: list[str], tail: list[str] | None) -> None:
        self.head = head
        self.tail = tail
        self.methods: dict[str, Handler] = {}

    def match(self, segments: list[str]) -> str | None:
        """The segment for which `{name}` stands ("" where there is none), or None where the path is another."""
        if self.tail is None:
            return "" if segments == self.head else None
        at = len(self.head)
        if segments[:at] == self.head and segments[at + 1 :] == self.tail:
            return segments[at] or None
        return None


class _Refused:
    """One path that is refused with an error, whatever the method."""

    __slots__ = ("_below", "_segments", "error")

    def __init__(self, path: str, error: Callable[[], ServiceError]) -> None:
        self._segments = path.removesuffix(BELOW).split("/")
        self._below = path.endswith(BELOW)
        self.error = error

    def matches(self, segments: list[str]) -> bool:
        """Whether these are the segments of the path, or of one below it where those count."""
        surplus = len(segments) - len(self._segments)
        return (surplus == 0 or (surplus > 0 and self._below)) and all(
            segment == expected or (expected.startswith("{") and segment != "")
            for expected, segment in zip(self._segments, segments, strict=False)
        )


class Router(Generic[Handler]):
    """The routes by their number of segments. One segment of a path may be a `{name}`, which stands for any one segment."""

    def __init__(
        self,
        routes: Iterable[tuple[str, str, Handler]],
        refused: Iterable[tuple[str, Callable[[], ServiceError]]] = (),
    ) -> None:
        """`routes` are method, path and handler; a GET route answers HEAD too.

        `refused` are path and error of paths that no route has, whatever the method. Any of their segments may be a `{name}`,
        and they may end with `BELOW`.
        """
        self._refused = [_Refused(path, error) for path, error in refused]
        paths: dict[str, _Route[Handler]] = {}
        self._routes: dict[int, list[_Route[Handler]]] = defaultdict(list)
        for method, path, handler in routes:
            if path not in paths:
                segments = path.split("/")
                at = next((at for at, segment in enumerate(segments) if segment.startswith("{")), None)
                paths[path] = _Route(segments, None) if at is None else _Route(segments[:at], segments[at + 1 :])
                self._routes[len(segments)].append(paths[path])
            paths[path].methods[method] = handler
            if method == "GET":
                paths[path].methods["HEAD"] = handler

    def find(self, method: str, path: str) -> tuple[Handler, str]:
        """The handler of `method` on the raw `path`, and the segment for which `{name}` stands.

        Segments are percent-decoded after the split, so that `%2F` in an identifier is no separator.

        Raises:
            RouteNotFound: there is no such path.
            MethodNotAllowed: there is, without that method.
            ServiceError: the path is one of those refused.
        """
        segments = path.split("/")
        routes = self._routes.get(len(segments), ())
        # A long path of many segments is not worth decoding.
        if routes and "%" in path:
            # What is not UTF-8 stays recognisable as such (surrogates); whoever uses the segment refuses it.
            segments = [unquote(segment, errors="surrogateescape") for segment in segments]
        allowed: list[str] = []
        for route in routes:
            value = route.match(segments)
            if value is None:
                continue
            handler = route.methods.get(method)
            if handler is not None:
                return handler, value
            allowed += route.methods
        if allowed:
            raise MethodNotAllowed(set(allowed))
        for refused in self._refused:
            if refused.matches(segments):
                raise refused.error()
        raise RouteNotFound
