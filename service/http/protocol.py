"""aiohttp's HTTP protocol under this service's own dispatch: requests come in parsed by aiohttp, answers go out in one write.

aiohttp's application layer (its router, middleware and response objects) costs more than all the rest of a GET; `dispatch` and
`answer` stand in its place. What concerns connections (parsing, keep-alive, flow control, the end) stays aiohttp's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import HttpVersion10, web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from service.errors import BadRequest, ServiceError
from service.http import envelope, requests
from service.http.answer import Answer

log = logging.getLogger("service")

Dispatch = Callable[[web.BaseRequest], Awaitable[Answer]]


class Protocol(RequestHandler):
    """One client's connection."""

    __slots__ = ("_body",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        super().__init__(*args, **kwargs)
        self._body: StreamReader = EMPTY_PAYLOAD

    def data_received(self, data: bytes) -> None:
        """Take what came; where it is not HTTP, a handler that waits for more of its body is told.

        aiohttp only puts the error behind the request whose body is broken, and that would be waited for until the client goes.
        """
        super().data_received(data)
        message, body = self._messages[-1] if self._messages else (None, self._body)
        if not isinstance(message, _ErrInfo):
            self._body = body
        elif not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError(message.message))

    async def finish_response(
        self,
        request: web.BaseRequest,
        resp: Any,  # noqa: ANN401 - an Answer where aiohttp would have a response
        start_time: float | None,  # noqa: ARG002 - the dispatch logs
    ) -> tuple[Any, bool]:
        """Write the answer; returns it and whether the client is gone."""
        request._finish()
        transport = self.transport
        if transport is None or transport.is_closing():
            return resp, True
        # What follows an upgrade would not be HTTP, and nothing here is upgraded to.
        resp.keep_alive = resp.keep_alive and request.keep_alive and not self._upgraded
        transport.write(resp.render(with_body=request.method != "HEAD", http_1_0=request.version <= HttpVersion10))
        if self._paused:
            await self._drain_helper()
        return resp, False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the client's headers, keys included
    ) -> Any:  # noqa: ANN401 - an Answer where aiohttp would have a response
        """Answer what aiohttp could not parse, or a defect, and close the connection."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a request failed outside of its handler", exc_info=exc)
            answer = envelope.failure(ServiceError())
        else:
            answer = envelope.failure(BadRequest("the request is not valid HTTP, or a line of it is too long"))
        answer.headers += b"X-Request-Id: %b\r\n" % requests.request_id(request.headers).encode()
        answer.keep_alive = False
        return answer

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        """Log a defect; a body that the client broke off is none, and has been answered."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


class Server(web.Server):
    """Makes a `Protocol` for each connection; requests go to `dispatch`."""

    def __init__(self, dispatch: Dispatch, *, max_body_bytes: int) -> None:
        """Bodies over `max_body_bytes` are refused when they are read."""
        super().__init__(dispatch, request_factory=self._request, access_log=None)  # type: ignore[arg-type]  # an Answer
        self._max_body_bytes = max_body_bytes

    def _request(
        self,
        message: Any,  # noqa: ANN401 - aiohttp's own, handed on
        payload: StreamReader,
        protocol: RequestHandler,
        writer: Any,  # noqa: ANN401 - aiohttp's own, handed on
        task: "asyncio.Task[None]",
    ) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=self._max_body_bytes)

    def awaits_first_request(self) -> bool:
        """Whether a connection has brought no request yet."""
        return any(connection._request_count == 0 for connection in self.connections)

    def __call__(self) -> RequestHandler:
        """Make one."""
        return Protocol(self, loop=self._loop, **self._kwargs)
