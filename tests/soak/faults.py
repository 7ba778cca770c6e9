"""The faults: processes that die or freeze, connections that break. Each kind once a round, in random order."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from random import Random

from redis.exceptions import RedisError

from tests.soak.client import HALF_SENT, NOT_READ, Client
from tests.soak.context import Context
from tests.soak.server import WORKERS, redis_of
from tests.support.server import PATIENCE, Serving, eventually

#: Seconds between two faults, when there is time.
PAUSE = 5.0
#: Seconds for which Redis is frozen; beyond the command timeout of one second requests fail.
FREEZE = 0.3, 2.0


class Faults:
    """Injects faults into the processes of a server, and has clients abandon requests."""

    def __init__(self, server: Serving, context: Context, clients: list[Client], random: Random) -> None:
        self._server = server
        self._context = context
        self._clients = clients
        self._random = random
        self._redis = redis_of(server)
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "worker killed": self._kill_worker,
            "Redis killed": self._kill_redis,
            "Redis frozen": self._freeze_redis,
            "Redis connections cut": self._cut_connections,
            "scripts flushed": self._flush_scripts,
            "requests abandoned": self._abandon_requests,
        }

    async def run(self, seconds: float) -> None:
        """Inject rounds of all faults until `seconds` are over, and each kind has come once."""
        now, done = asyncio.get_running_loop().time, self._context.stats.faults
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
        # Always the youngest: the memory of the oldest is then measured over the whole time.
        with self._context.fault_windows.open_window():
            killed = self._server.workers()[-1]
            os.kill(killed, signal.SIGKILL)
            await eventually(lambda: len({*self._server.workers()} - {killed}) == WORKERS, "a worker in place of a killed one")

    async def _kill_redis(self) -> None:
        with self._context.fault_windows.open_window():
            killed = self._redis_pid()
            if killed is not None:
                os.kill(killed, signal.SIGKILL)
            await eventually(lambda: self._redis_pid() not in (None, killed), "a Redis in place of a killed one")
            await self._redis_answers()

    async def _freeze_redis(self) -> None:
        with self._context.fault_windows.open_window():
            frozen = self._redis_pid()
            if frozen is None:
                return
            os.kill(frozen, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._random.uniform(*FREEZE))
            finally:
                os.kill(frozen, signal.SIGCONT)
            await self._redis_answers()

    async def _cut_connections(self) -> None:
        with self._context.fault_windows.open_window():
            await self._redis.client_kill_filter(_type="normal", skipme=True)

    async def _flush_scripts(self) -> None:
        await self._redis.script_flush()

    async def _abandon_requests(self) -> None:
        for client in self._clients:
            client.abandon_next = self._random.choice((HALF_SENT, NOT_READ))

    async def _redis_answers(self) -> None:
        """Wait until Redis responds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self._redis.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.05)
                else:
                    return

    def _redis_pid(self) -> int | None:
        """Process id of Redis, None while none runs."""
        return next(iter(self._server.redis_processes()), None)
