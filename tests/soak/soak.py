"""The schedule of a soak: clients at work while faults are injected, then none, then the store compared with the model."""

import asyncio
import sys
import time
from random import Random

from tests.soak import report
from tests.soak.client import Client, Unavailable
from tests.soak.context import Context
from tests.soak.faults import Faults
from tests.soak.memory import MemorySamples
from tests.soak.server import API_KEY
from tests.soak.shared import SHARED_SESSIONS, SharedSession
from tests.soak.verify import Verifier
from tests.soak.work import Work
from tests.support.http_client import Violation
from tests.support.server import Serving

CLIENTS = 8
#: Seconds between two lines of progress.
PROGRESS = 10.0
#: The share of requests that may get no response outside fault windows, since the host may be busy with other things; one
#: such moment concerns all clients.
UNEXCUSED = 1e-4
#: How often a read is sent again when the store is compared with the model.
READ_RETRIES = 5


class Soak:
    """One run."""

    def __init__(self, server: Serving, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._context = Context(server.origin, API_KEY)
        self._clients = [Client(number, self._context, seed) for number in range(CLIENTS)]
        self._shared = [SharedSession(number) for number in range(SHARED_SESSIONS)]
        self._works = [Work(client, self._shared) for client in self._clients]
        self._memory = MemorySamples(server)
        self._started = time.monotonic()

    async def run(self, seconds: float) -> int:
        """Soak for `seconds` and print the results; returns 0 if everything was right, else 1."""
        failures: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                await group.create_task(self._soak(seconds))
        except* (AssertionError, Unavailable) as errors:
            failures += [str(error) for error in _leaves(errors)]
        say(report.summary(self._context.stats, self._memory.series))
        failures += self._wrong_figures()
        for what in failures:
            say(f"WRONG, with --seed {self._seed}: {what}")
        return 1 if failures else 0

    async def _soak(self, seconds: float) -> None:
        for shared in self._shared:
            await shared.create(self._clients[0])
        await self._work(seconds)
        say("reading what is indeterminate")
        await asyncio.gather(*(work.settle() for work in self._works))
        say("comparing the store with the model")
        for work in self._works:
            # No fault is active, but the host may be busy with other things; the statistics show it.
            work.client.read_retries = READ_RETRIES
            await work.shared.check()
        count = await Verifier(self._server, self._clients, self._seed).verify({shared.id for shared in self._shared})
        await asyncio.to_thread(self._server.stop)
        self._verify_end()
        say(f"{count} sessions, all lists, users and documents match the model; check is clean")

    async def _work(self, seconds: float) -> None:
        """Let clients work while faults are injected."""
        ended = asyncio.Event()
        faults = Faults(self._server, self._context, self._clients, Random(f"{self._seed} faults"))
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self._memory.run()), group.create_task(self._report_progress())]
            workers = [group.create_task(work.run(ended)) for work in self._works]
            await faults.run(seconds)
            ended.set()
            await asyncio.wait(workers)
            for task in background:
                task.cancel()

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            if self._server.process.poll() is not None:
                raise Violation(f"the server ended:\n{self._server.errors[-3000:]}")
            sessions = sum(len(client.living()) for client in self._clients)
            say(report.progress(time.monotonic() - self._started, self._context.stats, sessions))

    def _verify_end(self) -> None:
        """The server exited with status 0, and logged no traceback."""
        log, status = self._server.output + self._server.errors, self._server.process.returncode
        if status != 0 or "Traceback" in log:
            raise Violation(f"the server exited with status {status} and logged:\n{log[-5000:]}")

    def _wrong_figures(self) -> list[str]:
        """What is wrong with memory and statistics."""
        stats = self._context.stats
        unexcused = sum(stats.unexcused.values())
        failures = [f"{one.name} grows: {one.thirds()}" for one in self._memory.series if one.is_flat() is False]
        if unexcused > max(CLIENTS, sum(stats.done.values()) * UNEXCUSED):
            failures.append(f"{unexcused} requests got no response outside fault windows: {dict(stats.unexcused)}")
        return failures


def _leaves(group: BaseException) -> list[BaseException]:
    """The single errors in a group of groups."""
    if isinstance(group, BaseExceptionGroup):
        return [leaf for error in group.exceptions for leaf in _leaves(error)]
    return [group]


def say(text: str) -> None:
    """Print it now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
