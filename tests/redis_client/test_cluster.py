"""A cluster whose nodes answer what a test wants: redirections, refusals, gaps and lies, all met or told within the time."""

import asyncio
from collections.abc import AsyncIterator, Callable

import hiredis
import pytest
from redis.exceptions import ResponseError

from service.errors import StoreUnavailable, WriteUncertain
from service.redis_client.client import RedisClient
from service.redis_client.cluster import Cluster, slot_of

TIMEOUT = 1.0
SLOTS = 16384

Words = list[bytes]


class Node:
    """A server that answers CLUSTER SLOTS with `map`, and the rest as `answer` says; `seen` are the other commands."""

    def __init__(self) -> None:
        self.port = 0
        self.map = b"*0\r\n"
        self.answer: Callable[[Words], bytes] = lambda words: b"$%d\r\n%b\r\n" % (len(words[-1]), words[-1])
        self.seen: list[Words] = []
        #: Set once a connection has ended.
        self.left = asyncio.Event()
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
                    self.seen.append(words)
                    writer.write(self.answer(words))
        writer.close()
        self.left.set()


def mapped(*ranges: tuple[int, int, Node], host: bytes = b"127.0.0.1") -> bytes:
    """A reply to CLUSTER SLOTS."""
    lines = [b"*%d\r\n" % len(ranges)]
    for first, last, node in ranges:
        lines.append(b"*3\r\n:%d\r\n:%d\r\n*2\r\n$%d\r\n%b\r\n:%d\r\n" % (first, last, len(host), host, node.port))
    return b"".join(lines)


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes; the first has all slots."""
    pair = Node(), Node()
    for node in pair:
        await node.start()
    for node in pair:
        node.map = mapped((0, SLOTS - 1, pair[0]))
    yield pair
    for node in pair:
        node.stop()


@pytest.fixture
async def redis(nodes: tuple[Node, Node]) -> AsyncIterator[RedisClient]:
    redis = RedisClient.open(f"redis+cluster://127.0.0.1:{nodes[0].port}", timeout=TIMEOUT)
    yield redis
    await redis.close()
    await asyncio.sleep(0)


def moved(node: Node, key: str, host: str = "127.0.0.1") -> bytes:
    return f"-MOVED {slot_of(('GET', key), None)} {host}:{node.port}\r\n".encode()


async def test_keys_of_one_tag_share_a_slot_and_scripts_go_by_their_first_key() -> None:
    assert slot_of(("GET", "foo"), None) == 12182  # as the specification of Redis Cluster has it
    assert slot_of(("GET", b"scc:{acme.0}:sessions"), None) == slot_of(("GET", "scc:{acme.0}:session:x"), None)
    assert slot_of(("EVALSHA", "sha", 2, "foo", "bar"), None) == slot_of(("GET", "foo"), None)
    assert slot_of(("TIME",), "foo") == 12182
    assert slot_of(("TIME",), 7) == 7


async def test_a_host_that_is_not_named_is_that_of_the_node_that_answered(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.map = mapped((0, SLOTS - 1, first), host=b"")
    first.answer = lambda words: moved(second, words[1].decode(), host="")
    second.map = mapped((0, SLOTS - 1, second), host=b"")
    assert await redis.call("GET", "foo") == b"foo"
    assert await redis.batch([("GET", "foo"), ("GET", "foo")]) == [b"foo", b"foo"]
    assert (len(first.seen), len(second.seen)) == (1, 3)


async def test_a_redirection_to_the_same_host_is_no_use_where_nobody_has_the_slot_any_more(
    nodes: tuple[Node, Node], redis: RedisClient
) -> None:
    first, second = nodes
    # While it was asked, a map came that gives the slot to nobody.
    topology = redis._topology
    assert isinstance(topology, Cluster)

    def answer(words: Words) -> bytes:
        topology._slots = [None] * SLOTS
        for node in nodes:
            node.map = mapped((0, SLOTS - 1, second))
        return moved(second, words[1].decode(), host="")

    first.answer = answer
    assert await redis.call("GET", "foo") == b"foo"
    assert (len(first.seen), len(second.seen)) == (1, 1)


async def test_a_slot_that_has_moved_is_asked_for_where_it_is_and_learnt(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.answer = lambda words: moved(second, words[1].decode())
    # The one that has it knows so first.
    second.map = mapped((0, SLOTS - 1, second))
    # A write that was sent on has not been made.
    assert await redis.call("SET", "foo", "x", writes=True) == b"x"
    assert [words[0] for words in first.seen] == [b"SET"]
    replies = await redis.batch([("GET", key) for key in ("a", "foo", "b", "foo")])
    assert replies == [b"a", b"foo", b"b", b"foo"]


async def test_a_key_on_its_way_is_asked_for_there_and_a_script_waits(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    asks = 3

    def ask(words: Words) -> bytes:
        nonlocal asks
        if words[0] == b"EVALSHA":
            asks -= 1
            if not asks:
                return b"+done\r\n"
        return b"-ASK 12182 127.0.0.1:%d\r\n" % second.port

    first.answer = ask
    second.answer = lambda words: b"+OK\r\n" if words[0] == b"ASKING" else b"+there\r\n"
    assert await redis.call("GET", "foo") == b"there"
    assert await redis.batch([("GET", "foo"), ("GET", "foo")]) == [b"there", b"there"]
    assert second.seen == [[b"ASKING"], [b"GET", b"foo"]] * 3
    assert await redis.call("EVALSHA", "sha", 1, "foo", writes=True) == b"done"
    assert len(second.seen) == 6


async def test_nodes_that_send_each_other_on_are_given_up_in_time(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    first, second = nodes
    first.answer = lambda words: moved(second, words[1].decode())
    second.answer = lambda words: moved(first, words[1].decode())
    started = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable) as told:
        await redis.call("SET", "foo", "x", writes=True)
    assert told.type is StoreUnavailable
    assert asyncio.get_running_loop().time() - started < TIMEOUT
    assert len(first.seen) + len(second.seen) < 100


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
async def test_what_passes_is_waited_for(nodes: tuple[Node, Node], redis: RedisClient, refusal: str) -> None:
    left = 4

    def refuse(_: Words) -> bytes:
        nonlocal left
        left -= 1
        return b"+done\r\n" if left < 0 else f"-{refusal}\r\n".encode()

    nodes[0].answer = refuse
    assert await redis.call("SET", "foo", "x", writes=True) == b"done"
    left = 1
    assert await redis.batch([("SET", "foo", "x"), ("SET", "foo", "y")], writes=True) == [b"done", b"done"]
    # What does not pass in time is told as it is: nothing was written.
    left = 10**6
    with pytest.raises(StoreUnavailable) as told:
        await redis.call("SET", "foo", "x", writes=True)
    assert told.type is StoreUnavailable


async def test_errors_that_are_ours_are_told_at_once(nodes: tuple[Node, Node], redis: RedisClient) -> None:
    nodes[0].answer = lambda _: b"-WRONGTYPE Operation against a key\r\n"
    with pytest.raises(ResponseError):
        await redis.call("GET", "foo")
    assert len(nodes[0].seen) == 1


async def test_a_slot_that_nobody_has_and_a_server_that_is_no_node_are_told_in_time(
    nodes: tuple[Node, Node], redis: RedisClient
) -> None:
    first, second = nodes
    first.map = second.map = mapped((0, 12181, first), (12183, SLOTS - 1, second))
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
async def test_each_end_of_a_range_of_slots_belongs_to_its_node(
    nodes: tuple[Node, Node], redis: RedisClient, first: int, last: int
) -> None:
    one, other = nodes
    around = [(0, first - 1, one), (first, last, other), (last + 1, SLOTS - 1, one)]
    one.map = other.map = mapped(*(each for each in around if each[0] <= each[1]))
    assert await redis.call("GET", "foo") == b"foo"
    for slot in (0, first - 1, last + 1, SLOTS - 1):
        if 0 <= slot < SLOTS:
            assert await redis.call("ECHO", slot, near=slot) == b"%d" % slot
    assert other.seen[0] == [b"GET", b"foo"]
    assert {int(words[1]) for words in other.seen[1:]} == {slot for slot in (0, SLOTS - 1) if first <= slot <= last}
    assert all(words[0] == b"ECHO" for words in one.seen)


@pytest.mark.parametrize("keys", [["foo", "bar"], ["bar", "foo"], ["bar", "foo", "bar"]])
async def test_a_batch_of_writes_that_one_node_has_made_is_uncertain_where_the_other_is_out_of_reach(
    nodes: tuple[Node, Node], redis: RedisClient, keys: list[str]
) -> None:
    first, second = nodes
    first.map = second.map = mapped((0, FOO - 1, first), (FOO, SLOTS - 1, second))
    # No connection to the second node was ever made: it has seen nothing.
    second.stop()
    with pytest.raises(WriteUncertain):
        await redis.batch([("SET", key, "2") for key in keys], writes=True)
    # What was made is not made again.
    assert first.seen == [[b"SET", b"bar", b"2"]] * keys.count("bar")
    # The same batch of reads is only unavailable, and so are writes of which none was sent or made.
    first.answer = lambda _: b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
    for commands, writes in (([("GET", key) for key in keys], False), ([("SET", key, "3") for key in keys], True)):
        with pytest.raises(StoreUnavailable) as failed:
            await redis.batch(commands, writes=writes)
        assert failed.type is StoreUnavailable


async def test_a_node_that_left_is_let_go(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    redis = RedisClient.open(f"redis+cluster://127.0.0.1:{first.port}", timeout=0.2)
    first.map = mapped((0, SLOTS - 1, second))
    assert await redis.call("GET", "foo") == b"foo"
    assert len(second.seen) == 1
    first.map = mapped((0, SLOTS - 1, first))
    second.answer = lambda words: moved(first, words[1].decode())
    assert await redis.call("GET", "foo") == b"foo"
    async with asyncio.timeout(30):
        await second.left.wait()
    await redis.close()
