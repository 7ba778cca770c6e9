"""The settings of a running server, read again: which of them can change, and which need a restart."""

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TypeAlias

from service.errors import ServiceError
from service.settings import Settings

logger = logging.getLogger(__name__)

Read: TypeAlias = Callable[[], Settings]

#: The sockets, Redis and the store are set up with these when the server starts.
FIXED = (
    "host", "port", "admin_host", "admin_port", "workers", "redis_url", "data_dir", "fsync", "max_memory", "redis_server",
    "root_token", "key_secret", "replace_root_key", "partitions", "min_replicas", "start_timeout",
)  # fmt: skip


def settings_again(read: Read, initial: Settings, running: Settings) -> Settings | None:
    """The settings for new workers: those of `read`, with the FIXED ones of `running`; None if they are not valid.

    `initial` are the settings of the start as they were read; `running` are those in force, with what the start has found out.
    """
    try:
        settings = read()
    except ServiceError as error:
        logger.error("the settings stay as they are: %s", error)
        return None
    names = [item.name for item in fields(Settings)]
    fixed = [name for name in names if name in FIXED and getattr(settings, name) != getattr(initial, name)]
    changed = [name for name in names if name not in FIXED and getattr(settings, name) != getattr(running, name)]
    if fixed:
        logger.warning("%s cannot change while the server runs; restart it for that", ", ".join(fixed))
    logger.info("replacing the workers; changed settings: %s", ", ".join(changed) or "none")
    return replace(settings, **{name: getattr(running, name) for name in FIXED})
