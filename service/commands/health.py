"""`health`: check that the server answers, for the health check of a container."""

import re
import socket
import sys

import click

from service.commands._parameters import takes_settings
from service.errors import StartupError
from service.process.listeners import reachable_address
from service.settings import Settings, flag, variable

#: Seconds; the Dockerfile gives the whole check 3.
_TIMEOUT = 2.0
_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@click.command()
@takes_settings(("host", "port"))
def command(settings: Settings) -> int:
    """Request `/health` from the server, without a proxy; the exit status is 0 if the response is 200.

    Raises:
        StartupError: there is no response, or its status is not 200.
    """
    if settings.port == 0:
        raise StartupError(f"port is 0, so the server's port is unknown; set {variable('port')} or {flag('port')}")
    host = reachable_address(settings.host)
    try:
        line = _status_line(host, settings.port)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StartupError(f"{host} port {settings.port} does not answer: {reason}") from None
    status = _STATUS_LINE.match(line)
    if status is None:
        raise StartupError(f"{host} port {settings.port} does not answer in HTTP")
    if status[1] != b"200":
        raise StartupError(f"{host} port {settings.port} answers /health with status {status[1].decode()}")
    sys.stdout.write("healthy\n")
    return 0


def _status_line(host: str, port: int) -> bytes:
    """The first line of the response. Importing http.client would take longer than the check."""
    with socket.create_connection((host, port), timeout=_TIMEOUT) as connection, connection.makefile("rb") as response:
        connection.sendall(_REQUEST)
        return response.readline(100)
