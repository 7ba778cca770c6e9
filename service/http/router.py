"""Finds the handler of a path in the table of routes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from service.errors import MethodNotAllowed, RouteNotFound

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


class _Catch(Generic[Handler]):
    """One path with one handler for all methods."""

    __slots__ = ("_below", "_segments", "handler")

    def __init__(self, path: str, handler: Handler) -> None:
        self._segments = path.removesuffix(BELOW).split("/")
        self._below = path.endswith(BELOW)
        self.handler = handler

    def matches(self, segments: list[str]) -> bool:
        """Whether these are the segments of the path, or of one below it where those count."""
        surplus = len(segments) - len(self._segments)
        return (surplus == 0 or (surplus > 0 and self._below)) and all(
            segment == expected or (expected.startswith("{") and segment != "")
            for expected, segment in zip(self._segments, segments, strict=False)
        )


class Router(Generic[Handler]):
    """The routes by their number of segments. One segment of a path may be a `{name}`, which stands for any one segment."""

    def __init__(self, routes: Iterable[tuple[str, str, Handler]], catches: Iterable[tuple[str, Handler]] = ()) -> None:
        """`routes` are method, path and handler; a GET route answers HEAD too.

        `catches` are path and handler of paths that no route has, whatever the method. Any of their segments may be a `{name}`,
        whose value nobody gets, and they may end with `BELOW`.
        """
        self._catches = [_Catch(path, handler) for path, handler in catches]
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
        """
        segments = path.split("/")
        if "%" in path:
            # What is not UTF-8 stays recognisable as such (surrogates); whoever uses the segment refuses it.
            segments = [unquote(segment, errors="surrogateescape") for segment in segments]
        allowed: list[str] = []
        for route in self._routes.get(len(segments), ()):
            value = route.match(segments)
            if value is None:
                continue
            handler = route.methods.get(method)
            if handler is not None:
                return handler, value
            allowed += route.methods
        if allowed:
            raise MethodNotAllowed(set(allowed))
        for catch in self._catches:
            if catch.matches(segments):
                return catch.handler, ""
        raise RouteNotFound
