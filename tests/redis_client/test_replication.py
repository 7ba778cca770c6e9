"""The connection for replicated writes, on connections whose replies the test gives."""

import asyncio
from typing import Any, cast

import hiredis
import pytest

from service.redis_client import replication
from service.redis_client.errors import ConnectionLost, RequestFailed, TimedOut, TooFewReplicas
from service.redis_client.multiplexer import MultiplexedConnection, pack
from service.redis_client.replication import MIN_TIME_TO_SEND, ReplicatedConnection

TIMEOUT = 5.0


class Faulty:
    """A connection that fails once, then replies OK to writes and 1 to WAIT."""

    def __init__(self) -> None:
        self.failed = asyncio.Event()

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:  # noqa: ARG002 - as `MultiplexedConnection`
        await asyncio.sleep(0)
        if not self.failed.is_set():
            self.failed.set()
            raise UnicodeError
        return [b"OK"] * (commands - 1) + [1]


async def test_an_unexpected_exception_is_raised_to_its_callers_and_blocks_no_later_write() -> None:
    connection = ReplicatedConnection(cast("MultiplexedConnection", Faulty()), 1, timeout=TIMEOUT)
    command = pack(("SET", "a", "b"))
    first = [asyncio.create_task(connection.send(command)) for _ in range(2)]
    await asyncio.sleep(0)
    later = [asyncio.create_task(connection.send(command)) for _ in range(2)]
    for write in first:
        with pytest.raises(UnicodeError):
            await write
    assert await asyncio.gather(*later, connection.send(command)) == [[b"OK"]] * 3


class Scripted:
    """A connection whose calls have the given results, in order: replies with that of WAIT at the end, or an error."""

    def __init__(self, *results: list[Any] | RequestFailed) -> None:
        self._results = list(results)
        self.sent: list[bytes] = []

    async def send(self, packed: bytes, commands: int = 1, seconds: float | None = None) -> list[Any]:
        assert seconds is not None
        self.sent.append(packed)
        result = self._results.pop(0)
        if isinstance(result, RequestFailed):
            raise result
        assert len(result) == commands
        return result


def replicated(scripted: Scripted, min_replicas: int = 1) -> ReplicatedConnection:
    return ReplicatedConnection(cast("MultiplexedConnection", scripted), min_replicas, timeout=TIMEOUT)


@pytest.mark.parametrize(("acknowledged", "is_enough"), [(0, False), (1, False), (2, True), (3, True)])
async def test_a_write_is_replicated_once_enough_replicas_have_it(acknowledged: int, is_enough: bool) -> None:
    scripted = Scripted([b"OK", acknowledged])
    write = replicated(scripted, 2).send(b"<write>")
    if is_enough:
        assert await write == [b"OK"]
    else:
        with pytest.raises(TooFewReplicas) as raised:
            await write
        assert raised.value.sent
    assert scripted.sent[0].startswith(b"<write>*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n")


async def test_of_a_group_only_writes_that_changed_something_lack_replicas() -> None:
    refusal = hiredis.ReplyError("OOM command not allowed")
    connection = replicated(Scripted([b"OK", refusal, refusal, refusal, b"OK", 0]))
    results = await asyncio.gather(
        *(connection.send(b"<write>", commands) for commands in (1, 1, 2, 1)), return_exceptions=True
    )
    assert [type(result) for result in results] == [TooFewReplicas, list, list, TooFewReplicas]
    assert results[1:3] == [[refusal], [refusal, refusal]]


async def test_a_refused_wait_is_the_cause_of_the_error() -> None:
    refusal = hiredis.ReplyError("NOPERM this user has no permissions")
    with pytest.raises(TooFewReplicas) as raised:
        await replicated(Scripted([b"OK", refusal])).send(b"<write>")
    assert raised.value.__cause__ is refusal


@pytest.mark.parametrize("sent", [True, False])
async def test_each_write_of_a_group_that_failed_tells_whether_it_was_sent(sent: bool) -> None:
    connection = replicated(Scripted(ConnectionLost(sent=sent)))
    results = await asyncio.gather(*(connection.send(b"<write>") for _ in range(3)), return_exceptions=True)
    assert [(type(result), getattr(result, "sent", None)) for result in results] == [(ConnectionLost, sent)] * 3


async def test_a_write_without_enough_time_left_is_not_sent_and_the_others_of_its_group_are() -> None:
    scripted = Scripted([b"OK", 1])
    connection = replicated(scripted)
    results = await asyncio.gather(
        connection.send(b"<late>", seconds=TIMEOUT * MIN_TIME_TO_SEND),
        connection.send(b"<in time>", seconds=TIMEOUT),
        return_exceptions=True,
    )
    assert (type(results[0]), getattr(results[0], "sent", None), results[1]) == (TimedOut, False, [b"OK"])
    assert len(scripted.sent) == 1
    assert scripted.sent[0].startswith(b"<in time>*3")


async def test_bytes_that_were_sent_no_longer_count_as_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replication, "MAX_BYTES", 10)
    connection = replicated(Scripted(*([b"OK", 1] for _ in range(5))))
    for _ in range(5):
        assert await connection.send(b"<write>") == [b"OK"]
