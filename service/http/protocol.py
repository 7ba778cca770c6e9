"""aiohttp's HTTP protocol, with the answers that it makes before any handler runs put in the envelope too."""

import logging
from http import HTTPStatus
from typing import Any

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from service.errors import BadRequest, ServiceError
from service.http import envelope, requests

log = logging.getLogger("service")


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

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's text quotes the client's headers, keys included
    ) -> web.StreamResponse:
        """Answer what aiohttp could not parse, or a defect, and close the connection."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun already")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("a request failed outside of its handler", exc_info=exc)
            response = _failure(request, ServiceError())
        else:
            response = _failure(request, BadRequest("the request is not valid HTTP, or a line of it is too long"))
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:  # noqa: ANN401 - aiohttp's signature
        """Log a defect; a body that the client broke off is none, and has been answered."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)


class Server(web.Server):
    """Makes a `Protocol` for each connection."""

    def __call__(self) -> RequestHandler:
        """Make one."""
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner of an application, on this `Server`."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()

        async def handler(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await made.request_handler(request)
            except web.HTTPExpectationFailed:  # raised before any middleware runs
                return _failure(request, BadRequest("Expect can only be 100-continue"))

        return Server(handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)


def _failure(request: web.BaseRequest, error: ServiceError) -> web.Response:
    response = envelope.failure(error)
    response.headers["X-Request-Id"] = requests.request_id(request)
    return response
