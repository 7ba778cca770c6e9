"""One run: its options, the servers that the rows share, started when first needed, and the measuring loop."""

import asyncio
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path

import orjson
from tqdm import tqdm

from scripts.benchmark import filling
from scripts.benchmark.dataset import DataSet
from scripts.benchmark.load import generators as load
from scripts.benchmark.load.generators import Answer, Connection, Load, Origin
from scripts.benchmark.report import result_line
from scripts.benchmark.servers.processes import FINE, KEY, Bare, Postgres, PostgresPeer, Service, Webdis
from scripts.benchmark.statistics import Hold, Result, merged
from scripts.benchmark.targets import BY_NAME
from service.store import scripts

MILLION = 1_000_000
#: Sessions of the stores on which single requests are measured.
FEW = 20_000
#: Different requests of one kind that a load goes round.
REQUESTS = 1000
CONNECTIONS = 64
#: How often a request is sent to see what its scripts take when nothing comes between.
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Options:
    """How much is done. `seconds` is what one side gets in one round."""

    rounds: int = 5
    seconds: float = 3.0
    #: The same for one request at a time on a list, of which there are many rows.
    list_seconds: float = 0.1
    sessions: int = MILLION
    default_sessions: int = 200_000
    redis_requests: int = 100_000
    #: Whether each comparison begins with a round that does not count.
    warm: bool = True


@dataclass
class Bench:
    """What the rows share."""

    options: Options
    home: Path
    stack: ExitStack
    results: list[Result] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    #: The longest script of a request, by its name, in milliseconds; see `quiet_hold`.
    quiet_holds: dict[str, float] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)
    _services: list[Service] = field(default_factory=list)

    # Servers

    def service(self, name: str, *, workers: int, data: DataSet | None = None) -> Service:
        """Another service, holding `data`."""
        service = self.stack.enter_context(Service(self.home / name, workers=workers))
        self._services.append(service)
        if data is not None:
            self.fill(service, data)
        return service

    def fill(self, service: Service, data: DataSet) -> None:
        """Load `data` into `service`."""
        filling.fill_redis(service.redis.url, data, f"loading {data.total:,} into Redis")
        self.note_holds("loading")

    @cached_property
    def few(self) -> DataSet:
        """The sessions of the small stores."""
        return DataSet(min(FEW, self.options.sessions))

    @cached_property
    def all(self) -> DataSet:
        """The sessions of the large store."""
        return DataSet(self.options.sessions)

    @cached_property
    def one(self) -> Service:
        """One worker, few sessions."""
        return self.service("one-worker", workers=1, data=self.few)

    @cached_property
    def two(self) -> Service:
        """Two workers, few sessions."""
        return self.service("two-workers", workers=2, data=self.few)

    @cached_property
    def large(self) -> Service:
        """Two workers, all sessions. How much memory those took is noted."""
        service = self.service("all", workers=2)
        before = service.redis.memory()
        self.fill(service, self.all)
        self.details["bytes of a session"] = (service.redis.memory() - before) / self.all.total
        return service

    @cached_property
    def postgres(self) -> Postgres:
        """The Postgres server."""
        self.say("starting Postgres")
        return self.stack.enter_context(Postgres(self.home / "postgres"))

    def peer(self, database: str, data: DataSet) -> PostgresPeer:
        """A Postgres peer over a new database with `data`."""
        label = f"loading {data.total:,} into Postgres"
        asyncio.run(filling.make_database(self.postgres, database, data, label))
        return self.stack.enter_context(PostgresPeer(self.home / f"peer-{database}", self.postgres, database))

    @cached_property
    def few_peer(self) -> PostgresPeer:
        """The Postgres peer, few sessions."""
        return self.peer("few", self.few)

    @cached_property
    def large_peer(self) -> PostgresPeer:
        """The Postgres peer, all sessions."""
        return self.peer("large", self.all)

    def bare(self, name: str, method: str, answer: Answer) -> Bare:
        """Bare aiohttp that gives `answer`."""
        return self.stack.enter_context(Bare(self.home / f"bare-{name}", {method: answer}))

    def webdis(self, service: Service) -> Webdis:
        """A webdis before the Redis of `service`."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return self.stack.enter_context(Webdis(self.home / "webdis", service.redis, port))

    def connection(self, origin: Origin) -> Connection:
        """A connection for one request at a time."""
        connection = Connection(origin)
        self.stack.callback(connection.close)
        return connection

    # Measuring

    def rounds(self, label: str, sides: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
        """Measure `sides` in turn, round by round."""
        measured: dict[str, list[float]] = {name: [] for name in sides}
        turns = [number >= 0 for number in range(-1 if self.options.warm else 0, self.options.rounds)]
        with tqdm(total=len(turns) * len(sides), desc=label, leave=False) as progress:
            for counts in turns:
                for name, measure in sides.items():
                    value = measure()
                    if counts:
                        measured[name].append(value)
                    progress.update()
        self.note_holds(label)
        return measured

    def wrk(self, origin: Origin, requests: Path, connections: int = CONNECTIONS) -> Load:
        """Load on `origin` for the time that a side has."""
        return load.wrk(origin, requests, connections=connections, seconds=self.options.seconds)

    def requests(self, name: str, requests: list[bytes]) -> Path:
        """A file of requests."""
        return load.write_requests(self.home / f"{name}.requests", requests)

    def note_holds(self, phase: str) -> list[Hold]:
        """Take down what held a Redis long since the last call; returns that."""
        taken: dict[str, list[int]] = {}
        for service in self._services:
            for command, micros in service.redis.slow_commands():
                taken.setdefault(_SCRIPTS.get(command, command), []).append(micros)
        limit = (BY_NAME["hold/run"].at_most or 0) * 1000
        new = [
            Hold(phase, command, max(times), sum(micros > limit for micros in times), command in _SCRIPTS.values())
            for command, times in taken.items()
        ]
        self.holds = merged([*self.holds, *new])
        return new

    def quiet_hold(self, service: Service, name: str, connection: Connection, requests: Iterable[bytes]) -> None:
        """Note the longest script of a request without what the scheduler takes: of several alike, the least time counts."""
        least = inf
        service.redis.watch(FINE)
        for sent in requests:
            connection.good(sent)
            noted = self.note_holds("large writes and lists, one at a time")
            least = min(least, max((hold.micros for hold in noted if hold.is_script), default=0))
        service.redis.watch()
        self.quiet_holds[name] = least / 1000

    def script_calls(self) -> int:
        """How many scripts the services that still run have called."""
        return sum(service.redis.script_calls() for service in self._services)

    def add(self, result: Result) -> None:
        """Take a result, and say it."""
        self.results.append(result)
        self.say(result_line(result))

    def say(self, text: str) -> None:
        """A line for the one who waits."""
        tqdm.write(text, file=sys.stderr)


_SCRIPTS = {
    script.sha: script.name
    for script in map(
        scripts.load,
        ("create", "replace", "patch", "delete", "expire", "find", "patch_project", "register_user", "expect_user"),
    )
}


def create_request(configs: object, *, session_id: str | None = None) -> bytes:
    """POST /session."""
    body = {"configs": configs} | ({"use_uuid": session_id} if session_id else {})
    return load.request("POST", f"{load.API}/session", key=KEY, body=orjson.dumps(body))


def patch_request(session_id: str, changes: object, suffix: str = "") -> bytes:
    """PATCH of a session's configs."""
    return load.request("PATCH", load.configs_path(session_id) + suffix, key=KEY, body=orjson.dumps({"configs": changes}))


def put_request(session_id: str, configs: object) -> bytes:
    """PUT of a session's configs."""
    return load.request("PUT", load.configs_path(session_id), key=KEY, body=orjson.dumps({"configs": configs}))


def delete_request(session_id: str) -> bytes:
    """DELETE of a session."""
    return load.request("DELETE", f"{load.API}/session/{session_id}", key=KEY)


def get_request(session_id: str, **headers: str) -> bytes:
    """GET of a session's configs."""
    return load.request("GET", load.configs_path(session_id), key=KEY, headers=headers)


def list_request(configs: object, *, descending: bool = False, cursor: str | None = None) -> bytes:
    """GET of a page."""
    return load.request("GET", load.list_path(configs, descending=descending, cursor=cursor), key=KEY)
