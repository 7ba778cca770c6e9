"""`health`: check that the server answers, for the health check of a container."""

import http.client
import sys
from argparse import ArgumentParser, Namespace

from service.errors import StartupError
from service.process.listeners import reachable_address
from service.settings import Settings, add_flags, flag, variable

#: Seconds; the Dockerfile gives the whole check 3.
_TIMEOUT = 2.0


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser, ("host", "port"))


def run(arguments: Namespace, settings: Settings) -> int:  # noqa: ARG001 - the signature of CommandModule
    """Request `/health` from the server, without a proxy; the exit status is 0 if the response is 200.

    Raises:
        StartupError: there is no response, or its status is not 200.
    """
    if settings.port == 0:
        raise StartupError(f"port is 0, so the server's port is unknown; set {variable('port')} or {flag('port')}")
    host = reachable_address(settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/health", headers={"Host": "localhost"})
        status = connection.getresponse().status
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StartupError(f"{host} port {settings.port} does not answer: {reason}") from None
    finally:
        connection.close()
    if status != http.client.OK:
        raise StartupError(f"{host} port {settings.port} answers /health with status {status}")
    sys.stdout.write("healthy\n")
    return 0
