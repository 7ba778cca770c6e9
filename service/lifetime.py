"""Children that end with their parent, however the parent ends.

Run as a program (`lifetime.py PARENT COMMAND …`) it ties itself to its parent and becomes the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """In a new child: have SIGTERM sent to this process when its parent, process `parent`, dies.

    Linux keeps the promise for the *thread* that forked, so fork from one that lives as long as the process. Other systems have
    no such thing: there a killed parent leaves its children behind.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the call; nobody would send the signal then.
    if os.getppid() != parent:
        os._exit(1)


def ending_with_this(command: list[str]) -> list[str]:
    """`command`, to be run so that it ends with this process.

    It goes through a small interpreter (10 ms) and not through a function between fork and exec, which no process with threads
    may run.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command that the caller chose
