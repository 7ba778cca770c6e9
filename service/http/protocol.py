"""aiohttp's HTTP protocol, with the answers that it makes before any handler runs put in the envelope too."""

import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from service.errors import BadRequest, ServiceError
from service.http import envelope

log = logging.getLogger("service")


class Protocol(RequestHandler):
    """One client's connection."""

    __slots__ = ()

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
            response = envelope.failure(ServiceError())
        else:
            response = envelope.failure(BadRequest("the request is not valid HTTP, or a line of it is too long"))
        response.force_close()
        return response


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
        return Server(made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)
