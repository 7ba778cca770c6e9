"""Child processes that end when their parent dies, even by SIGKILL.

Run as a program (`parent_death.py PARENT COMMAND …`), it asks for the signal and replaces itself with the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def set_parent_death_signal(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """In a new child: have the kernel send it the signal `number` when its parent, process `parent`, dies.

    Linux sends the signal when the *thread* that forked ends (see prctl(2)), so fork from the main thread. Other systems have
    no such call: there, children survive a killed parent unless they watch a `ParentPipe`.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    # If the parent died before the call, no signal will come.
    if os.getppid() != parent:
        os._exit(1)


class ParentPipe:
    """A pipe that nobody writes to, created before the children are forked: they read EOF when the parent dies."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def enter_child(self) -> int:
        """In a forked child: close the write end and return the read end, which becomes readable when the parent dies."""
        os.close(self._writer)
        return self._reader

    def close(self) -> None:
        """Close both ends; in the parent, after the last child has ended."""
        os.close(self._reader)
        os.close(self._writer)


def with_parent_death_signal(command: list[str]) -> list[str]:
    """`command`, wrapped so that it ends when this process dies.

    The wrapper is a minimal Python interpreter (10 ms). Popen's `preexec_fn` would be unsafe in a process with threads.
    """
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


if __name__ == "__main__":
    set_parent_death_signal(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's command
