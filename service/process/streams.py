"""Standard input, output and error of the process: always open, with one way to handle write errors.

If the caller closed descriptor 0, 1 or 2 (`>&-`, a daemon's parent), the next socket or lock file would get its number, and
output would go there. So each of them is opened on /dev/null first. Standard output is opened for reading: writing to it then
fails, as in shell tools, and no result is lost silently.

Standard output is UTF-8 in every locale: configs are JSON (RFC 8259, 8.1). Standard error has the encoding of the locale, with
backslash escapes for other characters.
"""

import io
import os
import sys
from contextlib import suppress

from service.errors import OutputError

_MODES = {0: os.O_RDONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


class _Output(io.FileIO):
    """Descriptor 1. An error is an OutputError; BrokenPipeError, for a reader that has exited (`| head`), stays as it is."""

    def write(self, data: "bytes | bytearray | memoryview[int]", /) -> int | None:  # type: ignore[override] # any buffer
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write to standard output: {error.strerror}") from None


def prepare() -> None:
    """Open closed descriptors, and set `sys.stdin`, `sys.stdout` and `sys.stderr`. Must run before anything opens a file."""
    for descriptor, mode in _MODES.items():
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, mode)  # the lowest free descriptor, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115 - as above
    # Paths may contain any bytes, and are printed unchanged.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding="utf-8",
        errors="surrogateescape",
        line_buffering=os.isatty(1),
    )


def finish(status: int) -> int:
    """Flush standard output and error; returns the exit status: `status`, or 1 if it was 0 and the output failed."""
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
    """Write one line to standard error; errors are ignored."""
    with suppress(OSError):
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def discard_output() -> None:
    """Discard buffered and later output to standard output; otherwise the interpreter's last flush would fail again."""
    _discard(1)


def _discard(descriptor: int) -> None:
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
