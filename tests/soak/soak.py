"""The course of a soak: clients at work while faults happen, then quiet, then the store held to the model."""

import asyncio
import sys
import time
from random import Random

from tests.soak import report
from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.ending import Ending
from tests.soak.faults import Faults
from tests.soak.memory import Memory
from tests.soak.server import KEY, Server
from tests.soak.shared import SHARED_SESSIONS, SharedSession
from tests.soak.wire import Unavailable
from tests.soak.work import Work
from tests.soak.world import World

CLIENTS = 8
#: Seconds between two lines of progress.
PROGRESS = 10.0
#: The share of requests that may get no answer though no fault is near, for the machine may be busy with other things; one
#: moment of that concerns all clients.
UNEXCUSED = 1e-4
#: How often a read is sent again when the store is held to the model.
PATIENCE = 5


class Soak:
    """One run."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._seed = seed
        self._world = World(server.port, KEY)
        self._clients = [Client(number, self._world, seed) for number in range(CLIENTS)]
        self._shared = [SharedSession(number) for number in range(SHARED_SESSIONS)]
        self._works = [Work(client, self._shared) for client in self._clients]
        self._memory = Memory(server)
        self._started = time.monotonic()

    async def run(self, seconds: float) -> int:
        """Soak for `seconds`, and print how it went; 0 where all was as it must be, else 1."""
        wrong: list[str] = []
        try:
            async with asyncio.TaskGroup() as group:
                await group.create_task(self._soak(seconds))
        except* (Difference, Unavailable) as found:
            wrong += [str(error) for error in _leaves(found)]
        say(report.summary(self._world.tally, self._memory.series))
        wrong += self._too_much()
        for what in wrong:
            say(f"WRONG, with --seed {self._seed}: {what}")
        return 1 if wrong else 0

    async def _soak(self, seconds: float) -> None:
        for shared in self._shared:
            await shared.create(self._clients[0])
        await self._work(seconds)
        say("settling what is in doubt")
        await asyncio.gather(*(work.settle() for work in self._works))
        say("holding the store to the model")
        for work in self._works:
            # No fault is on, but the machine may be busy with other things; the tally has what that costs.
            work.client.patience = PATIENCE
            await work.shared.hold()
        held = await Ending(self._server, self._clients, self._seed).hold({shared.id for shared in self._shared})
        await asyncio.to_thread(self._server.stop)
        self._hold_end()
        say(f"{held} sessions, all lists, users and documents are as the model has them; check is clean")

    async def _work(self, seconds: float) -> None:
        """Clients at work while faults happen."""
        ended = asyncio.Event()
        faults = Faults(self._server, self._world, self._clients, Random(f"{self._seed} faults"))
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(self._memory.run()), group.create_task(self._tell())]
            working = [group.create_task(work.run(ended)) for work in self._works]
            await faults.run(seconds)
            ended.set()
            await asyncio.wait(working)
            for task in beside:
                task.cancel()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS)
            if self._server.process.poll() is not None:
                raise Difference(f"the server ended:\n{self._server.output[-3000:]}")
            sessions = sum(len(client.living()) for client in self._clients)
            say(report.progress(time.monotonic() - self._started, self._world.tally, sessions))

    def _hold_end(self) -> None:
        """The server ended in order, and logged no defect."""
        output, status = self._server.output, self._server.process.returncode
        if status != 0 or "Traceback" in output:
            raise Difference(f"the server ended with status {status} and logged:\n{output[-5000:]}")

    def _too_much(self) -> list[str]:
        """What is wrong with the figures."""
        tally = self._world.tally
        unexcused = sum(tally.unexcused.values())
        wrong = [f"{one.name} grows: {one.thirds()}" for one in self._memory.series if one.is_flat() is False]
        if unexcused > max(CLIENTS, sum(tally.done.values()) * UNEXCUSED):
            wrong.append(f"{unexcused} requests got no answer though no fault was near: {dict(tally.unexcused)}")
        return wrong


def _leaves(group: BaseException) -> list[BaseException]:
    """The single errors in a group of groups."""
    if isinstance(group, BaseExceptionGroup):
        return [leaf for error in group.exceptions for leaf in _leaves(error)]
    return [group]


def say(text: str) -> None:
    """Print it now."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
