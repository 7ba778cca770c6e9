"""One run: its options, the servers that rows share (each started when first used), and the loop that measures in rounds."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib import resources
from math import inf
from pathlib import Path

from tqdm import tqdm

from scripts.benchmark import filling
from scripts.benchmark.dataset import DataSet
from scripts.benchmark.load import generators
from scripts.benchmark.load.connection import Address, Connection, Response
from scripts.benchmark.load.generators import LoadResult
from scripts.benchmark.load.requests import write_requests
from scripts.benchmark.servers.aiohttp_server import AiohttpServer
from scripts.benchmark.servers.bare_aiohttp import start_bare_aiohttp
from scripts.benchmark.servers.postgres import Postgres
from scripts.benchmark.servers.redis import FINE_THRESHOLD
from scripts.benchmark.servers.service import Service
from scripts.benchmark.servers.webdis import Webdis
from scripts.benchmark.statistics import LONGEST_SCRIPT, SlowCommand, merge
from service.store import scripts

#: Sessions of the stores on which single requests are measured.
SMALL = 20_000
#: Different requests of one kind that a load generator cycles through.
REQUESTS = 1000
CONNECTIONS = 64
#: How often a request is sent to learn the shortest time of its scripts.
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 3.0  # for one side in one round
    list_seconds: float = 0.1  # the same for one request of a list, of which there are many
    sessions: int = 1_000_000
    default_sessions: int = 200_000  # in the Redis on default settings
    redis_requests: int = 100_000
    warm_up: bool = True  # each comparison begins with a round that does not count
    other_checkout: Path | None = None  # of `--against`


@dataclass
class Bench:
    """What the rows share, and what they note in addition to their results."""

    options: Options
    home: Path
    stack: ExitStack
    slow_commands: list[SlowCommand] = field(default_factory=list)
    #: The longest script in milliseconds, by kind of request; see `measure_script_time`.
    script_times: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)
    _services: list[Service] = field(default_factory=list)

    # Servers

    def service(self, name: str, *, workers: int, data: DataSet | None = None) -> Service:
        """Start another service that holds `data`."""
        service = self.stack.enter_context(Service(self.home / name, workers=workers))
        service.redis.set_slowlog_threshold()
        self._services.append(service)
        if data is not None:
            self.fill(service, data)
        return service

    def fill(self, service: Service, data: DataSet) -> None:
        """Load `data` into `service`."""
        filling.fill_redis(service.redis.url, data, f"loading {data.total:,} sessions into Redis")
        self.collect_slow_commands("loading")

    def fill_and_measure(self, service: Service, data: DataSet) -> float:
        """Load `data` into `service`; returns how many bytes of Redis's memory a session takes."""
        before = service.redis.memory()
        self.fill(service, data)
        return (service.redis.memory() - before) / data.total

    @cached_property
    def small_data(self) -> DataSet:
        """The sessions of the small stores."""
        return DataSet(min(SMALL, self.options.sessions))

    @cached_property
    def large_data(self) -> DataSet:
        """The sessions of the large store."""
        return DataSet(self.options.sessions)

    @cached_property
    def one_worker(self) -> Service:
        """One worker and a small store."""
        return self.service("one-worker", workers=1, data=self.small_data)

    @cached_property
    def two_workers(self) -> Service:
        """Two workers and a small store."""
        return self.service("two-workers", workers=2, data=self.small_data)

    @cached_property
    def large_store(self) -> Service:
        """Two workers and the large store; notes how much memory its sessions take."""
        service = self.service("large-store", workers=2)
        self.details["bytes of a session"] = self.fill_and_measure(service, self.large_data)
        return service

    @cached_property
    def postgres(self) -> Postgres:
        """The Postgres server."""
        self.say("starting Postgres")
        return self.stack.enter_context(Postgres(self.home / "postgres"))

    @cached_property
    def small_postgres_api(self) -> AiohttpServer:
        """The API over Postgres with the sessions of the small stores."""
        return self._postgres_api("small", self.small_data)

    @cached_property
    def large_postgres_api(self) -> AiohttpServer:
        """The API over Postgres with the sessions of the large store, in database `large`."""
        return self._postgres_api("large", self.large_data)

    def _postgres_api(self, database: str, data: DataSet) -> AiohttpServer:
        label = f"loading {data.total:,} sessions into Postgres"
        asyncio.run(filling.fill_postgres(self.postgres, database, data, label))
        home = self.home / f"postgres-api-{database}"
        return self.stack.enter_context(AiohttpServer(home, "postgres_api", self.postgres.directory, database))

    def bare_aiohttp(self, name: str, method: str, response: Response) -> AiohttpServer:
        """Start a bare aiohttp that gives `response`."""
        return self.stack.enter_context(start_bare_aiohttp(self.home / f"bare-{name}", method, response))

    def webdis(self, service: Service) -> Webdis:
        """Start a webdis in front of the Redis of `service`."""
        return self.stack.enter_context(Webdis(self.home / "webdis", service.redis.socket))

    def connection(self, address: Address) -> Connection:
        """Open a connection for one request at a time."""
        connection = Connection(address)
        self.stack.callback(connection.close)
        return connection

    # Measuring

    def alternate(self, label: str, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Measure each side once a round; returns the figures of each side, one a round."""
        figures: dict[str, list[float]] = {name: [] for name in sides}
        first = -1 if self.options.warm_up else 0
        with tqdm(total=(self.options.rounds - first) * len(sides), desc=label, leave=False) as progress:
            for number in range(first, self.options.rounds):
                for name, measure in sides.items():
                    value = measure()
                    if number >= 0:
                        figures[name].append(value)
                    progress.update()
        self.collect_slow_commands(label)
        return figures

    def rates(self, label: str, sides: Mapping[str, tuple[Address, Path]]) -> dict[str, list[float]]:
        """Requests a second on each side, which is a server and the file of requests for it; one a round."""

        def rate(address: Address, requests: Path) -> float:
            return self.wrk(address, requests).rate

        return self.alternate(label, {name: partial(rate, *side) for name, side in sides.items()})

    def wrk(self, address: Address, requests: Path, connections: int = CONNECTIONS) -> LoadResult:
        """Run wrk for the time of one side in one round."""
        return generators.wrk(address, requests, connections=connections, seconds=self.options.seconds)

    def write_requests(self, name: str, requests: list[bytes]) -> Path:
        """Write a file of requests for wrk."""
        return write_requests(self.home / f"{name}.requests", requests)

    def collect_slow_commands(self, phase: str) -> list[SlowCommand]:
        """Read SLOWLOG of every service; returns what is new since the last call."""
        times: dict[str, list[int]] = {}
        for service in self._services:
            for command, micros in service.redis.take_slow_commands():
                times.setdefault(_script_names().get(command, command), []).append(micros)
        commands = [
            SlowCommand(
                phase,
                command,
                micros=max(all_micros),
                over=sum(micros > LONGEST_SCRIPT * 1000 for micros in all_micros),
                is_script=command in _script_names().values(),
            )
            for command, all_micros in times.items()
        ]
        self.slow_commands = merge([*self.slow_commands, *commands])
        return commands

    def measure_script_time(self, service: Service, name: str, connection: Connection, requests: Iterable[bytes]) -> None:
        """Note the longest script of a request: of several like requests the shortest time, without waiting for a core."""
        shortest = inf
        service.redis.set_slowlog_threshold(FINE_THRESHOLD)
        for request in requests:
            connection.send_ok(request)
            commands = self.collect_slow_commands("large writes and lists, one at a time")
            shortest = min(shortest, max((one.micros for one in commands if one.is_script), default=0))
        service.redis.set_slowlog_threshold()
        self.script_times[name] = shortest / 1000

    def script_calls(self) -> int:
        """How many scripts all services have called."""
        return sum(service.redis.command_stat("evalsha") for service in self._services)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(text, file=sys.stderr)


@cache
def _script_names() -> dict[str, str]:
    """The store's scripts: SHA-1 → name."""
    files = (file.name for file in resources.files("service.store").joinpath("lua").iterdir())
    names = (name.removesuffix(".lua") for name in files if name.endswith(".lua"))
    return {script.sha: script.name for script in map(scripts.load, names)}
