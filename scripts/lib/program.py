"""What the scripts start: processes that end with them, and one sentence where one does not do what it should."""

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from service.process.parent_death import with_parent_death_signal

ROOT = Path(__file__).parents[2]

_TIMEOUT = 60.0  # seconds for a start, and for an orderly end


class Failed(Exception):
    """Something that a script works with did not do what it should."""


class Program:
    """A process in a session of its own: a terminal's Ctrl-C reaches the script alone, which ends it in order."""

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
        """All it printed."""
        return self._output.read_text(errors="replace", encoding="utf-8")

    def printed(self, pattern: str) -> str:
        """Wait until it has printed `pattern`; returns the first group.

        Raises:
            Failed: it ended, or never did.
        """
        deadline = time.monotonic() + _TIMEOUT
        while not (match := re.search(pattern, self.output)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{self.home.name} did not start:\n{self.output[-2000:]}")
            time.sleep(0.01)
        return match[1]

    def stop(self) -> None:
        """End it, in order if it can."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def environment(**variables: str) -> dict[str, str]:
    """The environment without any setting of the service, and `variables`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SCC_")} | variables
