"""What may be cut off the end of an append-only file: an interrupted write and zeros, and nothing else. No Redis."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.aof_tail import is_interrupted_write


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


MULTI, EXEC = command(b"MULTI"), command(b"EXEC")
#: Values that look like commands, end in zeros, or are longer than one read.
VALUES = st.one_of(
    st.binary(max_size=20), st.sampled_from([MULTI, b"\0" * 9, b"\r\n", b"x" * 70_000, command(b"SET", b"a", b"b")])
)
WRITES = st.lists(VALUES, max_size=4).map(lambda values: command(b"HSET", *values))
TRANSACTIONS = st.lists(WRITES, max_size=4).map(lambda writes: b"".join([MULTI, *writes, EXEC]))
ZEROS = st.sampled_from([0, 1, 4096, 70_000]).map(lambda count: b"\0" * count)


def is_accepted(tail: bytes) -> bool:
    """The verdict on `tail` after a complete write."""
    return is_interrupted_write(BytesIO(EXEC + tail), len(EXEC), len(EXEC) + len(tail))


@given(st.one_of(WRITES, TRANSACTIONS), st.data(), ZEROS)
def test_the_beginning_of_a_write_is_accepted_wherever_it_was_cut(write: bytes, data: st.DataObject, zeros: bytes) -> None:
    cut = data.draw(st.integers(0, len(write) - 1))
    assert is_accepted(write[:cut] + zeros)


@given(st.one_of(WRITES, TRANSACTIONS), st.one_of(WRITES, TRANSACTIONS), ZEROS)
def test_nothing_is_cut_off_before_a_complete_write(damaged: bytes, whole: bytes, zeros: bytes) -> None:
    # One byte of a header is another: the write that follows would be lost with it.
    for tail in (b"\0" + damaged[1:], b"x" + damaged[1:], b"*x" + damaged[2:], b"+OK\r\n" + damaged):
        assert not is_accepted(tail + whole + zeros)
    assert not is_accepted(damaged + whole + zeros)


@pytest.mark.parametrize(
    "tail",
    [
        b"garbage", b"*1\n$4\r\nEXEC\r\n", b"*1\r\n$4\r\nEXECxx", b"*1\r\n:4\r\n", b"$4\r\nEXEC\r\n", b"*-1\r\n",
        b"*1\r\n$4x", b"*12345678901", b"*1\r\n*", EXEC, MULTI + MULTI, MULTI + EXEC + MULTI, b"\0\0*1\r\n",
    ],
)  # fmt: skip
def test_bytes_that_begin_no_write_are_damage(tail: bytes) -> None:
    assert not is_accepted(tail)


@pytest.mark.parametrize(
    "tail", [b"", b"*", b"\0" * 100_000, MULTI, MULTI + command(b"SET", b"a", b"b"), b"*3\r", b"*3\r\n$3\r\nSET\r\n$"]
)
def test_zeros_and_an_open_transaction_are_no_damage(tail: bytes) -> None:
    assert is_accepted(tail)
