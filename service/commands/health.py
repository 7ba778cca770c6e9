"""`health`: whether the server of these settings answers, for the health check of a container."""

import http.client
import sys
from argparse import ArgumentParser, Namespace

from service.errors import StartupError
from service.process.listeners import reachable_address
from service.settings import Settings, add_flags, flag, variable

#: Seconds; the Dockerfile gives the whole check 3.
_TIMEOUT = 2.0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the settings that say where the server listens."""
    add_flags(parser, ("host", "port"))


def run(arguments: Namespace, settings: Settings) -> int:  # noqa: ARG001 - the form of every command
    """Ask `/health` of the server directly, whatever HTTP_PROXY says; the exit status is 0 if it answers 200.

    Raises:
        StartupError: it does not; the message says what came instead.
    """
    if settings.port == 0:
        raise StartupError(f"a server that takes a free port cannot be found; set {variable('port')} or {flag('port')}")
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
        raise StartupError(f"{host} port {settings.port} answers {status} to /health")
    sys.stdout.write("healthy\n")
    return 0
