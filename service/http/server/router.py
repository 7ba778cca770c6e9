"""Finds the handler of a path in the table of routes."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar
from urllib.parse import unquote

from service.errors import MethodNotAllowed, RouteNotFound, ServiceError

EndpointT = TypeVar("EndpointT")

#: Ends a refused path that includes all paths below it.
SUBTREE = "/**"


class _Route(Generic[EndpointT]):
    """One path: the segments before and after its `{name}`, if it has one, and an endpoint for each method."""

    __slots__ = ("head", "methods", "tail")

    def __init__(self, head: list[str], tail: list[str] | None) -> None:
        self.head = head
        self.tail = tail
        self.methods: dict[str, EndpointT] = {}

    def match(self, segments: list[str]) -> str | None:
        """The segment that matches `{name}` ("" if the route has none), or None if the path does not match."""
        if self.tail is None:
            return "" if segments == self.head else None
        index = len(self.head)
        if segments[:index] == self.head and segments[index + 1 :] == self.tail:
            return segments[index] or None
        return None


class _RefusedPath:
    """One path that is refused with an error, whatever the method."""

    __slots__ = ("_has_subtree", "_segments", "error")

    def __init__(self, path: str, error: Callable[[], ServiceError]) -> None:
        self._segments = path.removesuffix(SUBTREE).split("/")
        self._has_subtree = path.endswith(SUBTREE)
        self.error = error

    def matches(self, segments: list[str]) -> bool:
        """Whether these are the segments of the path, or of one in its subtree."""
        surplus = len(segments) - len(self._segments)
        return (surplus == 0 or (surplus > 0 and self._has_subtree)) and all(
            segment == expected or (expected.startswith("{") and segment != "")
            for expected, segment in zip(self._segments, segments, strict=False)
        )


class Router(Generic[EndpointT]):
    """The routes by their number of segments. One segment of a path may be a `{name}`, which matches any one segment."""

    def __init__(
        self,
        routes: Iterable[tuple[str, str, EndpointT]],
        refused: Iterable[tuple[str, Callable[[], ServiceError]]] = (),
    ) -> None:
        """`routes` are method, path and endpoint; a GET route serves HEAD too.

        `refused` are path and error of paths that have no route and fail with the error, whatever the method. Any of their
        segments may be a `{name}`, and they may end with `SUBTREE`.
        """
        self._refused = [_RefusedPath(path, error) for path, error in refused]
        paths: dict[str, _Route[EndpointT]] = {}
        self._routes: dict[int, list[_Route[EndpointT]]] = defaultdict(list)
        for method, path, endpoint in routes:
            if path not in paths:
                segments = path.split("/")
                index = next((index for index, segment in enumerate(segments) if segment.startswith("{")), None)
                paths[path] = _Route(segments, None) if index is None else _Route(segments[:index], segments[index + 1 :])
                self._routes[len(segments)].append(paths[path])
            paths[path].methods[method] = endpoint
            if method == "GET":
                paths[path].methods["HEAD"] = endpoint

    def find(self, method: str, path: str) -> tuple[EndpointT, str]:
        """The endpoint of `method` on the raw `path`, and the segment that matches `{name}`.

        Segments are percent-decoded after the split, so that `%2F` in an identifier is no separator.

        Raises:
            RouteNotFound: no route has this path.
            MethodNotAllowed: a route has it, without this method.
            ServiceError: the path is one of those refused.
        """
        segments = path.split("/")
        routes = self._routes.get(len(segments), ())
        # Not if no route has as many segments: a long path of many segments is not worth decoding.
        if routes and "%" in path:
            # Bytes that are not UTF-8 become surrogates; the handler that uses the segment refuses them.
            segments = [unquote(segment, errors="surrogateescape") for segment in segments]
        allowed: list[str] = []
        for route in routes:
            parameter = route.match(segments)
            if parameter is None:
                continue
            endpoint = route.methods.get(method)
            if endpoint is not None:
                return endpoint, parameter
            allowed += route.methods
        if allowed:
            raise MethodNotAllowed(set(allowed))
        for refused in self._refused:
            if refused.matches(segments):
                raise refused.error()
        raise RouteNotFound
