"""Long work while servers run: it makes way for requests, and leaves nothing unfinished when it is ended."""

import os
import signal
import sys

#: Added to the process's niceness: requests come first.
NICENESS = 10


def begin() -> None:
    """Lower the priority of this process, and let SIGTERM end it as an error does: drafts are deleted."""
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
