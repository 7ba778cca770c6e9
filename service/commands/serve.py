"""`serve`: put the server together and run it until SIGTERM."""

import logging
from functools import partial

import click

from service.commands._parameters import FLAGS, takes_settings
from service.errors import StartupError
from service.process import logs, supervisor
from service.process.supervisor import Parts
from service.setting_sources import config_path, load, warnings
from service.settings import Settings

logger = logging.getLogger(__name__)


@click.command()
@takes_settings(FLAGS)
def command(settings: Settings) -> int:
    """Serve; returns 0 after a clean shutdown.

    Raises:
        StartupError: the server cannot start.
    """
    logs.configure(settings)
    for warning in warnings(settings):
        logger.warning("%s", warning)
    flags = click.get_current_context().obj
    try:
        if settings.otel:
            import service.http.server.tracing  # noqa: F401 - an error now, and not in every worker, if a package is missing
        supervisor.serve(settings, load_parts, partial(load, flags) if config_path(flags) else None)
    except StartupError as error:
        if settings.log_format != "json":
            raise
        # Every line is an object: whoever collects them as JSON would lose the reason of a failed start.
        logger.error("%s", error)
        return error.exit_status
    return 0


def load_parts() -> Parts:
    """Import what the supervisor runs; it calls this while Redis starts."""
    from service.http.admin.server import run_admin
    from service.http.app import LAYOUT, run_worker
    from service.store.upkeep.bootstrap import prepare

    return Parts(prepare, run_worker, run_admin, LAYOUT.words)
