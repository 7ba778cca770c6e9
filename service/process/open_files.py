"""The limit on open files (`ulimit -n`): raised as far as the system allows; too low a limit is an error."""

import resource

from service.errors import StartupError

#: Files that a process needs before its first connection: the server about 20, Redis 32.
MIN_OPEN_FILES = 48


def require(workers: int) -> None:
    """Raise the limit to what a server with so many workers needs; it has a listening socket for each.

    Raises:
        StartupError: the limit cannot be raised so far; the message names both numbers.
    """
    needed = MIN_OPEN_FILES + workers
    limit = raise_limit(needed)
    if limit < needed:
        raise StartupError(
            f"the limit on open files is {limit}; a server with --workers {workers} needs {needed}; raise it with `ulimit -n`"
        )


def raise_limit(wanted: int) -> int:
    """Raise the limit to `wanted` files, or as far as the system allows; returns the new limit, at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
