"""Finds the handler of a path in the table of routes."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from service.errors import MethodNotAllowed, NotFound

Handler = TypeVar("Handler")


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


class Router(Generic[Handler]):
    """The routes by their number of segments. One segment of a path may be a `{name}`, which stands for any one segment."""

    def __init__(self, routes: Iterable[tuple[str, str, Handler]]) -> None:
        """`routes` are method, path and handler; a GET route answers HEAD too."""
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
            NotFound: there is no such path.
            MethodNotAllowed: there is, without that method.
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
        raise NotFound("there is no such route")
