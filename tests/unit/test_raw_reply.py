"""Replies printed as `redis-cli --raw` prints them. tests/store compares the same rows with a real one."""

import hiredis
import pytest

from service.commands._raw_reply import printed

# fmt: off
REPLIES = [
    (b"+OK\r\n", b"OK\n"),
    (b"$3\r\na\xff\n\r\n", b"a\xff\n\n"),
    (b"$0\r\n\r\n", b"\n"),
    (b"$-1\r\n", b"\n"),
    (b":-7\r\n", b"-7\n"),
    (b":9223372036854775807\r\n", b"9223372036854775807\n"),
    (b"-ERR no\r\n", b"ERR no\n\n"),
    (b"*0\r\n", b"\n"),
    (b"*-1\r\n", b"\n"),
    (b"*3\r\n$1\r\na\r\n$-1\r\n:2\r\n", b"a\n\n2\n"),
    (b"*3\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n*0\r\n*1\r\n*1\r\n$1\r\nc\r\n", b"a\nb\n\nc\n"),
    (b"*3\r\n:1\r\n-ERR no\r\n:2\r\n", b"1\nERR no\n\n2\n"),
]
REPORTS = ["INFO", "info", "INFO server", "INFO a b", "LOLWUT", "CLIENT LIST", "client info", "CLIENT LIST TYPE normal",
           "CLUSTER NODES", "CLUSTER INFO", "DEBUG HTSTATS 0", "LATENCY DOCTOR", "LATENCY GRAPH e", "MEMORY DOCTOR",
           "MEMORY MALLOC-STATS"]
NO_REPORTS = ["GET INFO", "CLIENT", "CLIENT ID", "CLUSTER", "CLUSTER NODES a", "LATENCY GRAPH", "LATENCY DOCTOR a",
              "MEMORY USAGE a", "CONFIG GET INFO", "LIST CLIENT"]
# fmt: on


@pytest.mark.parametrize(("resp", "text"), REPLIES, ids=lambda each: repr(each))
def test_a_reply_is_printed_as_redis_cli_raw_prints_it(resp: bytes, text: bytes) -> None:
    reader = hiredis.Reader()
    reader.feed(resp)
    assert printed([b"COMMAND"], reader.gets()) == text


@pytest.mark.parametrize("command", REPORTS)
def test_a_report_gets_no_newline(command: str) -> None:
    assert printed(command.encode().split(), b"line\r\n") == b"line\r\n"
    assert printed(command.encode().split(), None) == b""


@pytest.mark.parametrize("command", NO_REPORTS)
def test_a_command_that_only_resembles_a_report_gets_a_newline(command: str) -> None:
    assert printed(command.encode().split(), b"a") == b"a\n"
