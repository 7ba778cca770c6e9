"""The limit on open files (`ulimit -n`): raised as far as it may be, and refused where a server cannot work with it."""

import resource

from service.errors import StartupError

#: What a process of the server has open at most before its first connection: some 20, and Redis keeps 32 for itself.
FEWEST = 48


def require(workers: int) -> None:
    """Refuse a limit that a server with so many workers cannot work with: it holds a listener for each.

    Raises:
        StartupError: the message names the limit and what is needed.
    """
    needed = FEWEST + workers
    limit = raise_limit(needed)
    if limit < needed:
        raise StartupError(
            f"this process may open {limit} files only, and a server with --workers {workers} needs {needed}; raise `ulimit -n`"
        )


def raise_limit(wanted: int) -> int:
    """Let this process open `wanted` files, or as many as the system allows; returns how many it may open, at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
