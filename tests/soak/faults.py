"""The faults: what dies, freezes or forgets while the clients go on. Each kind once a round, in random order."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from random import Random

from redis.exceptions import RedisError

from tests.soak.client import HALF, WHOLE, Client
from tests.soak.differences import Difference
from tests.soak.server import WORKERS, Server
from tests.soak.world import World

#: Seconds between two faults, when there is time.
PAUSE = 5.0
#: Seconds for which Redis is frozen; beyond the command timeout of one second requests fail.
FREEZE = 0.3, 2.0
#: Seconds in which everything must be well again after a fault.
PATIENCE = 60.0


class Faults:
    """What goes wrong, and when."""

    def __init__(self, server: Server, world: World, clients: list[Client], random: Random) -> None:
        self._server = server
        self._world = world
        self._clients = clients
        self._random = random
        self._redis = server.redis()
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self._kill_worker,
            "Redis killed": self._kill_redis,
            "Redis frozen": self._freeze_redis,
            "Redis connections cut": self._cut_connections,
            "scripts flushed": self._flush_scripts,
            "requests broken off": self._break_off,
        }

    async def run(self, seconds: float) -> None:
        """Rounds of all faults until `seconds` are over, and each kind was on once."""
        now, done = asyncio.get_running_loop().time, self._world.tally.faults
        end, pause = now() + seconds, min(PAUSE, seconds / (len(self._kinds) + 1))
        while len(done) < len(self._kinds) or now() + pause < end:
            for kind in self._random.sample(list(self._kinds), len(self._kinds)):
                if kind in done and now() + pause >= end:
                    continue
                await asyncio.sleep(pause * self._random.uniform(0.5, 1.5))
                await self._kinds[kind]()
                done[kind] += 1
        await asyncio.sleep(end - now())

    async def _kill_worker(self) -> None:
        # Always the youngest, so that the memory of the oldest can be judged over the whole time.
        with self._world.weather.foul():
            killed = self._server.workers()[-1]
            os.kill(killed, signal.SIGKILL)
            await self._until(lambda: len({*self._server.workers()} - {killed}) == WORKERS, "a worker in place of a killed one")

    async def _kill_redis(self) -> None:
        with self._world.weather.foul():
            killed = self._server.redis_pid()
            if killed is not None:
                os.kill(killed, signal.SIGKILL)
            await self._until(lambda: self._server.redis_pid() not in (None, killed), "a Redis in place of a killed one")
            await self._answers()

    async def _freeze_redis(self) -> None:
        with self._world.weather.foul():
            frozen = self._server.redis_pid()
            if frozen is None:
                return
            os.kill(frozen, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._random.uniform(*FREEZE))
            finally:
                os.kill(frozen, signal.SIGCONT)
            await self._answers()

    async def _cut_connections(self) -> None:
        with self._world.weather.foul():
            await self._redis.client_kill_filter(_type="normal", skipme=True)

    async def _flush_scripts(self) -> None:
        await self._redis.script_flush()

    async def _break_off(self) -> None:
        for client in self._clients:
            client.break_off = self._random.choice((HALF, WHOLE))

    async def _answers(self) -> None:
        """Wait until Redis answers."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._redis.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.05)
                else:
                    return

    @staticmethod
    async def _until(holds: Callable[[], bool], what: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while not holds():
            if loop.time() > deadline:
                raise Difference(f"never came: {what}")
            await asyncio.sleep(0.02)
