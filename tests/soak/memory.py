"""Memory over time, and whether it is flat."""

import asyncio
from dataclasses import dataclass, field
from statistics import median

from redis.exceptions import RedisError

from tests.soak.server import redis_of
from tests.support.server import Serving, memory_of

#: Seconds between two samples, and the fewest samples that a verdict on a series needs.
INTERVAL, MIN_SAMPLES = 2.0, 90
#: The last third of a series is flat when its median is at most `FACTOR` times the median of the second third, and `SLACK` MB.
FACTOR, SLACK = 1.05, 3.0


@dataclass
class Series:
    """One figure over time, in MB."""

    name: str
    values: list[float] = field(default_factory=list)

    def thirds(self) -> tuple[float, float, float]:
        """The medians of its thirds."""
        third = len(self.values) // 3
        return median(self.values[:third]), median(self.values[third : 2 * third]), median(self.values[2 * third :])

    def is_flat(self) -> bool | None:
        """Whether it does not grow; None where it has too few samples."""
        if len(self.values) < MIN_SAMPLES:
            return None
        _, second, last = self.thirds()
        return last <= second * FACTOR + SLACK


class MemorySamples:
    """The memory of each worker and of Redis."""

    def __init__(self, server: Serving) -> None:
        self._server = server
        self._redis = redis_of(server)
        self._workers: dict[int, tuple[Series, Series]] = {}
        self._used = Series("Redis, used_memory")

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await self.sample()
            await asyncio.sleep(INTERVAL)

    async def sample(self) -> None:
        """Take one sample of each process that is running, and of Redis if it responds."""
        for pid in self._server.workers():
            sample = memory_of(pid)
            if sample is not None:
                number = len(self._workers) + 1
                new = Series(f"worker {number}, RSS"), Series(f"worker {number}, USS")
                for series, value in zip(self._workers.setdefault(pid, new), sample, strict=True):
                    series.values.append(value)
        try:
            info = await self._redis.info("memory")
            self._used.values.append(info["used_memory"] / 1e6)
        except (RedisError, OSError):
            return

    @property
    def series(self) -> list[Series]:
        """All of them."""
        return [*(series for both in self._workers.values() for series in both), self._used]
