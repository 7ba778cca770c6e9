"""`serve`: put the server together and run it until SIGTERM."""

import logging
from argparse import ArgumentParser, Namespace

from service.process import logs, supervisor
from service.process.supervisor import Parts
from service.settings import Settings, add_flags, warnings

logger = logging.getLogger(__name__)


def add_arguments(parser: ArgumentParser) -> None:
    add_flags(parser)


def run(arguments: Namespace, settings: Settings) -> int:  # noqa: ARG001 - the form of every command
    """Serve; returns 0 after a clean shutdown.

    Raises:
        StartupError: the server cannot start.
    """
    logs.configure()
    for warning in warnings(settings):
        logger.warning("%s", warning)
    supervisor.serve(settings, load_parts)
    return 0


def load_parts() -> Parts:
    """Import what the supervisor runs; it calls this while Redis starts."""
    from service.http.app import run_worker
    from service.store.upkeep.bootstrap import prepare

    return Parts(prepare, run_worker)
