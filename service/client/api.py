"""The calls of the API. JSON goes and comes as text, so that no number is converted."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import httpx
import msgspec

from service import __version__
from service.client.access import Access
from service.client.answer import elements, member, text
from service.errors import CallRefused, NothingFound, ServerUnreachable

#: Seconds to wait for a connection, and for a part of the response.
_CONNECT, _READ = 5.0, 60.0
#: The most sessions of one page.
PAGE = 200


class Api:
    """One server and API key; use it with `with`."""

    def __init__(self, access: Access) -> None:
        self._url = access.url
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {access.api_key}", "User-Agent": f"session-configs/{__version__}"},
            timeout=httpx.Timeout(_READ, connect=_CONNECT),
        )

    def __enter__(self) -> "Api":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(
        self, method: str, path: str, body: str | None = None, query: Mapping[str, str | int] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of a successful call.

        Raises:
            NothingFound: there is no such session.
            CallRefused: the server refuses the call, because of the key or what was sent.
            ServerUnreachable: there was no response, or the server cannot work now.
        """
        content = None if body is None else body.encode()
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._http.request(method, self._url + path, content=content, params=query, headers=headers)
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise self._unreachable(method, error) from None
        if not response.is_success:
            raise _error(response)
        return response.status_code, response.content

    def on_session(self, method: str, session_id: str, below: str = "", body: str | None = None) -> bytes:
        """Body of a successful call for one session; what its id contains cannot change the path."""
        path = quote(session_id, safe="").replace(".", "%2E")
        return self.call(method, f"/session/{path}{below}", body)[1]

    def sessions(self, query: Mapping[str, str | int], limit: int | None = None) -> Iterator[bytes]:
        """The sessions of a list, page by page, `limit` at most; each as JSON."""
        remaining, cursor = limit, ""
        while remaining is None or remaining > 0:
            size = PAGE if remaining is None else min(PAGE, remaining)
            page = {**query, "limit": size} | ({"cursor": cursor} if cursor else {})
            _, body = self.call("GET", "/session", query=page)
            data = member(body, "data")
            items = elements(member(data, "items"))
            yield from items
            remaining = None if remaining is None else remaining - len(items)
            if member(data, "has_more") != b"true":
                return
            cursor = text(data, "next_cursor")

    def _unreachable(self, method: str, error: Exception) -> ServerUnreachable:
        scheme, _, rest = self._url.partition("://")
        is_proxied = {scheme, "all"} & getproxies().keys() and not proxy_bypass(rest.partition("/")[0])
        via = " through the proxy that the environment names" if is_proxied else ""
        message = f"{self._url} does not answer{via}: {str(error) or type(error).__name__}"
        is_sent = not isinstance(
            error, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL | httpx.UnsupportedProtocol
        )
        return ServerUnreachable(f"{message}; the write may have been made" if is_sent and method != "GET" else message)


def _error(response: httpx.Response) -> CallRefused | NothingFound | ServerUnreachable:
    """The error that a response stands for; its message is the server's, if it has one."""
    try:
        envelope: dict[str, Any] = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        envelope = {}
    message = f"{envelope.get('msg') or f'the response has status {response.status_code}'}"
    if envelope.get("error"):
        message = f"{message}: {envelope['error']}"
    if envelope.get("reason") in ("session_not_found", "user_not_found"):
        return NothingFound(message)
    if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR or not envelope:
        return ServerUnreachable(message)
    return CallRefused(message)
