"""Real Redis servers on loopback, in the topologies that the service knows: a cluster, and a master with Sentinels."""

import random
import signal
import socket
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from service.process.parent_death import with_parent_death_signal
from tests.support.server import PATIENCE, until

HOST = "127.0.0.1"
#: A node's bus port is its port plus 10,000; both lie below the ports that systems give to connections.
PORTS, BUS = range(12_000, 22_000), 10_000
SLOTS = 16_384
#: Milliseconds after which silence is death. Where none is wanted, a busy machine must not be mistaken for a dead server.
DEATH, QUICK_DEATH = 2500, 1000

_IN_MEMORY = ("--save", "", "--appendonly", "no", "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
              "--repl-ping-replica-period", "1", "--set-max-intset-entries", "4096")  # fmt: skip
_CLUSTER = ("--cluster-enabled", "yes", "--cluster-migration-barrier", "100", "--cluster-replica-validity-factor", "0")


def _free_port() -> int:
    while True:
        port = random.choice(PORTS)
        with suppress(OSError), socket.create_server((HOST, port)), socket.create_server((HOST, port + BUS)):
            return port


class Server:
    """One Redis or Sentinel process."""

    def __init__(self, directory: Path, binary: str, settings: Iterable[str] = _IN_MEMORY) -> None:
        """`settings` are those of the command line; the first may be a configuration file."""
        self._settings = tuple(settings)
        self._binary = binary
        while True:
            self.port = _free_port()
            self.directory = directory / str(self.port)
            self.directory.mkdir(parents=True)
            self.client = Redis(host=HOST, port=self.port, protocol=2, decode_responses=True, socket_timeout=PATIENCE)
            self.client.response_callbacks.clear()
            self.start()
            # Another process may have taken the port.
            until(lambda: self.answers or self.process.poll() is not None, "an answer of Redis")
            if self.process.poll() is None:
                return

    @property
    def answers(self) -> bool:
        """Whether it answers, and has its data."""
        try:
            return bool(self.ask("PING") == "PONG")
        except RedisError:
            return False

    def start(self) -> None:
        """Start it, or start it again."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                with_parent_death_signal(
                    [self._binary, *self._settings, "--port", str(self.port), "--bind", HOST, "--dir", str(self.directory)]
                ),
                stdout=log,
                stderr=log,
            )

    def ask(self, *words: object) -> Any:  # noqa: ANN401 - Redis replies differ
        """Run one command."""
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]  # redis-py leaves it so

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()
        self.client.close()

    def freeze(self) -> None:
        """Stop it where it stands."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let it continue."""
        self.process.send_signal(signal.SIGCONT)

    def is_master(self) -> bool:
        """Whether it answers, and as a master."""
        try:
            return bool(self.ask("ROLE")[0] == "master")
        except RedisError:
            return False

    def stop(self) -> None:
        """End it, and forget it."""
        self.wake()
        self.kill()


class Cluster:
    """Three masters, each with a replica; more nodes can come and go."""

    def __init__(self, directory: Path, binary: str, death: int = DEATH) -> None:
        self._directory = directory
        self._binary = binary
        self._death = str(death)
        self.servers = [self._server() for _ in range(6)]
        masters, replicas = self.servers[:3], self.servers[3:]
        for number, server in enumerate(self.servers, 1):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number)
        for number, master in enumerate(masters):
            master.ask("CLUSTER", "ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
        for server in self.servers[1:]:
            server.ask("CLUSTER", "MEET", HOST, self.servers[0].port)
        until(lambda: all(len(nodes_of(server)) == 6 for server in self.servers), "nodes that know each other")
        for master, replica in zip(masters, replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", id_of(master))
        self.wait_whole()

    def _server(self) -> Server:
        return Server(self._directory, self._binary, (*_IN_MEMORY, *_CLUSTER, "--cluster-node-timeout", self._death))

    @property
    def url(self) -> str:
        """Its URL, by two of its nodes."""
        return f"redis+cluster://{HOST}:{self.servers[0].port},{HOST}:{self.servers[4].port}"

    def wait_whole(self) -> None:
        """Wait until all nodes see all slots served, and three masters have a replica that is up to date."""
        until(lambda: all(map(sees_all_served, self.servers)), "a cluster that is whole")

        def replicated() -> bool:
            up = [server for server in self.servers if "master_link_status:up" in server.ask("INFO", "replication")]
            return len(up) == len(self.servers) - len(self.masters()) and len(up) >= 3

        until(replicated, "replicas that are up to date")
        self.agree()

    def agree(self) -> None:
        """Wait until all nodes know the same. A slot that moves again before would have two owners."""

        def views() -> list[dict[str, list[str]]]:
            # Of each node its master, epoch and slots.
            return [{line[0]: [line[3], line[6], *line[8:]] for line in nodes_of(server)} for server in self.servers]

        until(lambda: all(view == seen[0] for seen in [views()] for view in seen), "nodes that agree")

    def masters(self) -> list[Server]:
        """The servers that have slots, as each says of itself."""
        return [server for server in self.servers if server.answers and has_slots(server)]

    def owner(self, slot: int) -> Server:
        """The master that has a slot."""
        for server in self.masters():
            for first, last, master, *_ in server.ask("CLUSTER", "SLOTS"):
                if first <= slot <= last and master[1] == server.port:
                    return server
        raise AssertionError(f"no node has slot {slot}")

    def replica_of(self, master: Server) -> Server:
        """The replica of a master, by its own report."""
        return next(server for server in self.servers if server.ask("ROLE")[:3] == ["slave", HOST, master.port])

    def begin_move(self, slot: int, target: Server) -> Server:
        """Open a slot on both sides; returns the source."""
        source = self.owner(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", id_of(target))
        return source

    def keys_of(self, slot: int, source: Server, count: int = 1_000_000) -> list[str]:
        """Keys of a slot that a node has."""
        return list(source.ask("CLUSTER", "GETKEYSINSLOT", slot, count))

    def move_keys(self, source: Server, target: Server, keys: list[str]) -> None:
        """Move keys of a slot on its way."""
        source.ask("MIGRATE", HOST, target.port, "", 0, 30_000, "KEYS", *keys)

    def end_move(self, slot: int, target: Server) -> None:
        """Make the target the owner, as redis-cli does: on the target first."""
        target.ask("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))
        for master in self.masters():
            # One that has given its last slot away becomes a replica.
            with suppress(ResponseError):
                master.ask("CLUSTER", "SETSLOT", slot, "NODE", id_of(target))

    def move(self, slot: int, target: Server, *, count: int = 20) -> None:
        """Move a slot with its keys, a few at a time."""
        if self.owner(slot) is target:
            return
        source = self.begin_move(slot, target)
        while keys := self.keys_of(slot, source, count):
            self.move_keys(source, target, keys)
        self.end_move(slot, target)

    def add(self) -> Server:
        """A new master, without slots yet."""
        server = self._server()
        server.ask("CLUSTER", "MEET", HOST, self.servers[0].port)
        self.servers.append(server)
        until(lambda: all(len(nodes_of(each)) == len(self.servers) for each in self.servers), "a node that all others know")
        until(lambda: sees_all_served(server), "a node that knows all")
        return server

    def remove(self, server: Server) -> None:
        """Take a server without slots out, and end it."""
        self.servers.remove(server)
        gone = id_of(server)
        server.stop()
        for other in self.servers:
            other.ask("CLUSTER", "FORGET", gone)

    def stop(self) -> None:
        """End all servers."""
        for server in self.servers:
            server.stop()


def nodes_of(server: Server) -> list[list[str]]:
    """The nodes that a node of a cluster knows: id, address, flags, master, ping, pong, epoch, link, slots."""
    return [line.split(" ") for line in server.ask("CLUSTER", "NODES").splitlines()]


def id_of(server: Server) -> str:
    """The id of a cluster's node."""
    return str(server.ask("CLUSTER", "MYID"))


def has_slots(server: Server) -> bool:
    """Whether a node is a master with slots, by its own report."""
    (own,) = [line for line in nodes_of(server) if "myself" in line[2]]
    return "master" in own[2] and len(own) > 8


def sees_all_served(server: Server) -> bool:
    """Whether a node finds nothing wrong with the cluster."""
    if not server.answers:
        return False
    info = server.ask("CLUSTER", "INFO")
    return f"cluster_state:ok\r\ncluster_slots_assigned:{SLOTS}\r\ncluster_slots_ok:{SLOTS}" in info


class Sentinels:
    """A master with two replicas, and three Sentinels that watch it."""

    NAME = "store"

    def __init__(self, directory: Path, binary: str, death: int = DEATH) -> None:
        self.servers = [Server(directory, binary) for _ in range(3)]
        first = self.servers[0]
        for replica in self.servers[1:]:
            replica.ask("REPLICAOF", HOST, first.port)
        self.sentinels: list[Server] = []
        for number in range(3):
            config = directory / f"sentinel-{number}.conf"
            config.write_text(
                f"sentinel monitor {self.NAME} {HOST} {first.port} 2\n"
                f"sentinel down-after-milliseconds {self.NAME} {death}\n"
                f"sentinel failover-timeout {self.NAME} {5 * death}\n"
                f"sentinel parallel-syncs {self.NAME} 2\n",
                encoding="utf-8",
            )
            self.sentinels.append(Server(directory, binary, (str(config), "--sentinel")))
        self.wait_whole()

    @property
    def url(self) -> str:
        """The URL of the store."""
        return f"redis+sentinel://{','.join(f'{HOST}:{sentinel.port}' for sentinel in self.sentinels)}/{self.NAME}"

    def master(self) -> Server:
        """The master, as the Sentinels name it."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return next(server for server in self.servers if server.port == int(port))

    def wait_whole(self) -> None:
        """Wait until all Sentinels know each other and the same master, and its replicas are up to date."""

        def is_complete(sentinel: Server) -> bool:
            reply = sentinel.ask("SENTINEL", "MASTER", self.NAME)
            fields = dict(zip(reply[::2], reply[1::2], strict=True))
            seen = [fields[name] for name in ("flags", "num-slaves", "num-other-sentinels", "port")]
            return seen == ["master", "2", "2", str(self.master().port)]

        until(lambda: all(map(is_complete, self.sentinels)), "Sentinels that know each other")

        def replicated() -> bool:
            replies = [server.ask("INFO", "replication") for server in self.servers if server is not self.master()]
            return all("role:slave" in info and "master_link_status:up" in info for info in replies)

        until(replicated, "replicas that are up to date")

    def stop(self) -> None:
        """End all servers."""
        for server in [*self.sentinels, *self.servers]:
            server.stop()
