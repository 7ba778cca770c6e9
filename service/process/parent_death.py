"""Children that end with their parent, however the parent ends.

Run as a program (`lifetime.py PARENT COMMAND …`) it ties itself to its parent and becomes the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """In a new child: have the signal `number` sent to this process when its parent, process `parent`, dies.

    Linux keeps the promise for the *thread* that forked, so fork from one that lives as long as the process. Other systems have
    no such thing: there a killed parent leaves its children behind, unless they watch a `ParentPipe`.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    # The parent may have died before the call; nobody would send the signal then.
    if os.getppid() != parent:
        os._exit(1)


class ParentPipe:
    """A pipe that nobody writes to, made before the children are forked: they read its end of file when the parent dies."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def enter_child(self) -> int:
        """In a forked child: keep the read end alone; returns it. It is readable once the parent is dead."""
        os.close(self._writer)
        return self._reader

    def close(self) -> None:
        """In the parent, once no child is left."""
        os.close(self._reader)
        os.close(self._writer)


def with_parent_death_signal(command: list[str]) -> list[str]:
    """`command`, to be run so that it ends with this process.

    It goes through a small interpreter (10 ms) and not through a function between fork and exec, which no process with threads
    may run.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command that the caller chose
