"""Standard input, output and error of the process: open whatever the caller closed, and with one rule for what fails.

A descriptor 0, 1 or 2 that the caller closed (`>&-`, a daemon's parent) would be given to the next socket or lock file, and
what is printed would go there. So each of them is opened on /dev/null first. Standard output is opened there for reading: what
a command writes to it then fails, as it does with the tools of a shell, and no result is lost in silence.

Standard output carries UTF-8 in every locale: configs are JSON (RFC 8259, 8.1). Messages on standard error keep the encoding of
the locale; what that lacks is shown as backslash escapes.
"""

import io
import os
import sys
from contextlib import suppress

from service.errors import OutputError

_MODES = {0: os.O_RDONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


class _Output(io.FileIO):
    """Descriptor 1. A reader that is gone (`| head`) stays a BrokenPipeError."""

    def write(self, data: "bytes | bytearray | memoryview[int]", /) -> int | None:  # type: ignore[override] # any buffer
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output cannot be written: {error.strerror}") from None


def prepare() -> None:
    """Open what is closed, and make `sys.stdin`, `sys.stdout` and `sys.stderr` usable. The first act of the process."""
    for descriptor, mode in _MODES.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free descriptor, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above
    # Paths may hold any bytes; they come out as they came in.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding="utf-8",
        errors="surrogateescape",
        line_buffering=os.isatty(1),
    )


def finish(status: int) -> int:
    """Write out what is buffered; returns the exit status, which is 1 where `status` was 0 and that failed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        status = status or 141
    except OutputError as error:
        discard_output()
        report(str(error))
        status = status or 1
    try:
        sys.stderr.flush()
    except OSError:
        _discard(2)
    return status


def report(message: str) -> None:
    """Write one line to standard error, if that takes it."""
    with suppress(OSError):
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def discard_output() -> None:
    """Drop what is buffered for standard output and all that follows; the interpreter's last flush would fail with it again."""
    _discard(1)


def _discard(descriptor: int) -> None:
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
