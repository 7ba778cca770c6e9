"""`serve`: run the server until SIGTERM."""

import logging
from argparse import ArgumentParser, Namespace

from service.process import logs, supervisor
from service.settings import Settings, add_flags, warnings

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    """Add a flag for every setting."""
    add_flags(parser)


def run(arguments: Namespace, settings: Settings) -> int:  # noqa: ARG001 - the form of every command
    """Serve; 0 after an orderly end.

    Raises:
        StartupError: the server cannot start.
    """
    logs.configure()
    for warning in warnings(settings):
        logger.warning("%s", warning)
    supervisor.serve(settings)
    return 0
