"""Processes that the scripts start: they die with the script, and a failure is one sentence."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from service.process.parent_death import with_parent_death_signal

ROOT = Path(__file__).parents[2]

_TIMEOUT = 60.0  # seconds for a start, and for a clean stop


class Failed(Exception):
    """A process of a script failed; the message says how."""


class Program:
    """A process in a new session: a terminal's Ctrl-C reaches only the script, which stops the process cleanly."""

    def __init__(self, home: Path, command: list[str], *, tied: bool = True, **options: Any) -> None:  # noqa: ANN401 - Popen's
        home.mkdir(exist_ok=True)
        self.home = home
        self._output = home / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                with_parent_death_signal(command) if tied else command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                **options,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def output(self) -> str:
        """Its standard output and error so far."""
        return self._output.read_text(errors="replace", encoding="utf-8")

    def printed(self, pattern: str) -> str:
        """Wait until its output matches `pattern`; returns the first group.

        Raises:
            Failed: it exited without a match, or the wait timed out.
        """
        deadline = time.monotonic() + _TIMEOUT
        while not (match := re.search(pattern, self.output)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.home.name} did not start:\n{self.output[-2000:]}")
            time.sleep(0.01)
        return match[1]

    def stop(self) -> None:
        """Stop it with SIGTERM, or with SIGKILL after a timeout."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment(**variables: str) -> dict[str, str]:
    """The environment without settings of the service, plus `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SCC_")} | variables
