"""A cluster of fake nodes: redirections, refusals, unassigned slots and wrong maps are handled, or reported in time."""

import asyncio
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.redis_client.cluster import Cluster, slot_of
from service.redis_client.multiplexer import MAX_SILENT_TIMEOUTS

#: Seconds: more than a stall of the machine takes, and for tests that wait until it is over.
TIMEOUT, SHORT_TIMEOUT = 6.0, 1.0

with_short_timeout = pytest.mark.parametrize("redis", [SHORT_TIMEOUT], ids=[""], indirect=True)
SLOTS = 16384

Words = list[bytes]


class Node:
    """A server that replies to CLUSTER SLOTS with `map`, and to other commands, kept in `commands`, as `answer` says."""

    def __init__(self) -> None:
        self.port = 0
        self.map = b"*0\r\n"
        self.answer: Callable[[Words], bytes] = lambda words: b"$%d\r\n%b\r\n" % (len(words[-1]), words[-1])
        self.commands: list[Words] = []
        #: Set once a client has disconnected.
        self.disconnected = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        parser = hiredis.Reader()
        while data := await reader.read(65536):
            parser.feed(data)
            while (words := parser.gets()) is not False:
                if words[0] in (b"CLIENT", b"HELLO"):
                    writer.write(b"+OK\r\n")
                elif words[0] == b"CLUSTER":
                    writer.write(self.map)
                else:
                    self.commands.append(words)
                    writer.write(self.answer(words))
        writer.close()
        self.disconnected.set()


def slot_map(*ranges: tuple[int, int, Node], host: bytes = b"127.0.0.1") -> bytes:
    """A reply to CLUSTER SLOTS: first slot, last slot and node of each range."""
    lines = [b"*%d\r\n" % len(ranges)]
    for first, last, node in ranges:
        lines.append(b"*3\r\n:%d\r\n:%d\r\n*2\r\n$%d\r\n%b\r\n:%d\r\n" % (first, last, len(host), host, node.port))
    return b"".join(lines)


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes; the first serves all slots."""
    pair = Node(), Node()
    for node in pair:
        await node.start()
    for node in pair:
        node.map = slot_map((0, SLOTS - 1, pair[0]))
    yield pair
    for node in pair:
        node.stop()


@pytest.fixture
async def redis(nodes: tuple[Node, Node], request: pytest.FixtureRequest) -> AsyncIterator[RedisClient]:
    redis = RedisClient.open(f"redis+cluster://127.0.0.1:{nodes[0].port}", timeout=getattr(request, "param", TIMEOUT))
    yield redis
    await redis.close()
    await asyncio.sleep(0)


def moved(node: Node, key: str, host: str = "127.0.0.1") -> bytes:
    return f"-MOVED {slot_of(('GET', key), None)} {host}:{node.port}\r\n".encode()


async def test_keys_with_one_hash_tag_share_a_slot_and_a_script_has_the_slot_of_its_first_key() -> None:
    assert slot_of(("GET", "foo"), None) == 12182  # https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    assert slot_of(("GET", b"scc:{acme.0}:sessions"), None) == slot_of(("GET", "scc:{acme.0}:session:x"), None)
    assert slot_of(("EVALSHA", "sha", 2, "foo", "bar"), None) == slot_of(("GET", "foo"), None)
    assert slot_of(("TIME",), "foo") == 12182
    assert slot_of(("TIME",), 7) == 7


async def test_an_empty_host_is_that_of_the_node_that_replied(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.map = slot_map((0, SLOTS - 1, first), host=b"")
    first.answer = lambda words: moved(second, words[1].decode(), host="")
    second.map = slot_map((0, SLOTS - 1, second), host=b"")
    assert await redis.call("GET", "foo") == b"foo"
    assert await redis.batch([("GET", "foo"), ("GET", "foo")]) == [b"foo", b"foo"]
    assert (len(first.commands), len(second.commands)) == (1, 3)


async def test_a_redirection_without_host_is_ignored_if_the_slot_has_become_unassigned(
    nodes: tuple[Node, Node], redis: RedisClient
) -> None:
    first, second = nodes
    # While the node was asked, a refresh has read a map in which no node serves the slot.
    topology = redis._topology
    assert isinstance(topology, Cluster)

    def answer(words: Words) -> bytes:
        topology._slots = [None] * SLOTS
        for node in nodes:
            node.map = slot_map((0, SLOTS - 1, second))
        return moved(second, words[1].decode(), host="")

    first.answer = answer
    assert await redis.call("GET", "foo") == b"foo"
    assert (len(first.commands), len(second.commands)) == (1, 1)


async def test_moved_is_followed_and_remembered(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.answer = lambda words: moved(second, words[1].decode())
    # The new owner knows first that it serves the slot.
    second.map = slot_map((0, SLOTS - 1, second))
    # A redirected write was not executed, so it is sent again.
    assert await redis.call("SET", "foo", "x", writes=True) == b"x"
    assert [words[0] for words in first.commands] == [b"SET"]
    replies = await redis.batch([("GET", key) for key in ("a", "foo", "b", "foo")])
    assert replies == [b"a", b"foo", b"b", b"foo"]


async def test_a_command_follows_ask_and_a_script_waits_for_the_migration(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    redirects = 3

    def ask(words: Words) -> bytes:
        nonlocal redirects
        if words[0] == b"EVALSHA":
            redirects -= 1
            if not redirects:
                return b"+done\r\n"
        return b"-ASK 12182 127.0.0.1:%d\r\n" % second.port

    first.answer = ask
    second.answer = lambda words: b"+OK\r\n" if words[0] == b"ASKING" else b"+there\r\n"
    assert await redis.call("GET", "foo") == b"there"
    assert await redis.batch([("GET", "foo"), ("GET", "foo")]) == [b"there", b"there"]
    assert second.commands == [[b"ASKING"], [b"GET", b"foo"]] * 3
    assert await redis.call("EVALSHA", "sha", 1, "foo", writes=True) == b"done"
    assert len(second.commands) == 6


@with_short_timeout
async def test_nodes_that_redirect_to_each_other_fail_a_call_in_time(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.answer = lambda words: moved(second, words[1].decode())
    second.answer = lambda words: moved(first, words[1].decode())
    started = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable) as raised:
        await redis.call("SET", "foo", "x", writes=True)
    assert raised.type is StoreUnavailable
    assert asyncio.get_running_loop().time() - started < TIMEOUT
    assert len(first.commands) + len(second.commands) < 100


@pytest.mark.parametrize("redis", [3.0], ids=[""], indirect=True)
@pytest.mark.parametrize(
    "refusal",
    [
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down",
        "READONLY You can't write against a read only replica.",
        "ERR Script attempted to access a non local key in a cluster node script: 58fc, on @user_script:1.",
        "ERR Error running script (call to f_58fc): @user_script:1: @user_script: 1: Lua script attempted to access a non "
        "local key in a cluster node",
    ],
)
async def test_a_transient_refusal_is_retried(nodes: tuple[Node, Node], redis: RedisClient, refusal: str) -> None:
    refusals = 4

    def refuse(_: Words) -> bytes:
        nonlocal refusals
        refusals -= 1
        return b"+done\r\n" if refusals < 0 else f"-{refusal}\r\n".encode()

    nodes[0].answer = refuse
    assert await redis.call("SET", "foo", "x", writes=True) == b"done"
    refusals = 1
    assert await redis.batch([("SET", "foo", "x"), ("SET", "foo", "y")], writes=True) == [b"done", b"done"]
    # A refusal that lasts longer than the timeout is reported: nothing was written.
    refusals = 10**6
    with pytest.raises(StoreUnavailable) as raised:
        await redis.call("SET", "foo", "x", writes=True)
    assert raised.type is StoreUnavailable


async def test_an_error_that_is_no_refusal_is_not_retried(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    nodes[0].answer = lambda _: b"-WRONGTYPE Operation against a key\r\n"
    with pytest.raises(ResponseError):
        await redis.call("GET", "foo")
    assert len(nodes[0].commands) == 1


@with_short_timeout
async def test_an_unassigned_slot_and_a_server_without_cluster_support_fail_a_call_in_time(
    nodes: tuple[Node, Node], redis: RedisClient
) -> None:
    first, second = nodes
    first.map = second.map = slot_map((0, 12181, first), (12183, SLOTS - 1, second))
    with pytest.raises(StoreUnavailable):
        await redis.call("GET", "foo")
    assert await redis.call("GET", "bar") == b"bar"
    assert await redis.call_on_masters("PING") == [b"PING", b"PING"]
    other = RedisClient.open(f"redis+cluster://127.0.0.1:{first.port}", timeout=0.3)
    first.map = b"-ERR This instance has cluster support disabled\r\n"
    with pytest.raises(StoreUnavailable):
        await other.call("GET", "foo")
    await other.close()


FOO = 12182  # the slot of "foo"; that of "bar" is before it


@pytest.mark.parametrize(("first", "last"), [(FOO, FOO), (FOO, SLOTS - 1), (FOO - 1, FOO), (0, FOO)])
async def test_the_first_and_last_slot_of_a_range_belong_to_its_node(
    nodes: tuple[Node, Node], redis: RedisClient, first: int, last: int
) -> None:
    one, other = nodes
    around = [(0, first - 1, one), (first, last, other), (last + 1, SLOTS - 1, one)]
    one.map = other.map = slot_map(*(each for each in around if each[0] <= each[1]))
    assert await redis.call("GET", "foo") == b"foo"
    for slot in (0, first - 1, last + 1, SLOTS - 1):
        if 0 <= slot < SLOTS:
            assert await redis.call("ECHO", slot, near=slot) == b"%d" % slot
    assert other.commands[0] == [b"GET", b"foo"]
    assert {int(words[1]) for words in other.commands[1:]} == {slot for slot in (0, SLOTS - 1) if first <= slot <= last}
    assert all(words[0] == b"ECHO" for words in one.commands)


@with_short_timeout
@pytest.mark.parametrize("keys", [["foo", "bar"], ["bar", "foo"], ["bar", "foo", "bar"]])
async def test_writes_made_by_one_node_are_uncertain_when_the_other_node_is_unreachable(
    nodes: tuple[Node, Node], redis: RedisClient, keys: list[str]
) -> None:
    first, second = nodes
    first.map = second.map = slot_map((0, FOO - 1, first), (FOO, SLOTS - 1, second))
    # There was never a connection to the second node, so it has received nothing.
    second.stop()
    with pytest.raises(WriteUncertain):
        await redis.batch([("SET", key, "2") for key in keys], writes=True)
    # A write that was made is not sent again.
    assert first.commands == [[b"SET", b"bar", b"2"]] * keys.count("bar")
    # Reads are only unavailable, and so are writes when every node refused them or was never reached.
    first.answer = lambda _: b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    for commands, writes in (([("GET", key) for key in keys], False), ([("SET", key, "3") for key in keys], True)):
        with pytest.raises(StoreUnavailable) as failed:
            await redis.batch(commands, writes=writes)
        assert failed.type is StoreUnavailable


async def test_connections_to_a_node_that_has_left_the_cluster_are_closed(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    redis = RedisClient.open(f"redis+cluster://127.0.0.1:{first.port}", timeout=0.2)
    first.map = slot_map((0, SLOTS - 1, second))
    assert await redis.call("GET", "foo") == b"foo"
    assert len(second.commands) == 1
    first.map = slot_map((0, SLOTS - 1, first))
    second.answer = lambda words: moved(first, words[1].decode())
    assert await redis.call("GET", "foo") == b"foo"
    async with asyncio.timeout(30):
        await second.disconnected.wait()
    await redis.close()


async def test_connections_to_a_node_that_stays_in_the_cluster_stay_open(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    redis = RedisClient.open(f"redis+cluster://127.0.0.1:{first.port}", timeout=0.2)
    first.map = second.map = slot_map((0, FOO - 1, first), (FOO, SLOTS - 1, second))
    assert await redis.call("GET", "foo") == b"foo"
    # A second look at the map, which names the same nodes.
    echo = first.answer
    first.answer = lambda words: moved(second, words[1].decode())
    assert await redis.call("GET", "bar") == b"bar"
    first.answer = echo
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(second.disconnected.wait(), 0.2 * MAX_SILENT_TIMEOUTS + 0.3)
    assert await redis.call("GET", "foo") == b"foo"
    await redis.close()
