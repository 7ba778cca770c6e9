"""Format replies as `redis-cli --raw` does.

Source: `cliFormatReplyRaw`, `cliFormatReply` and `cliSendCommand` in redis-cli.c; the same in Redis 6.2 to 8 and in Valkey.
"""

from collections.abc import Sequence

from service.commands._raw_command import Reply

#: Commands whose replies end with a newline, so that redis-cli adds none: their first words, and their number of words.
_ANY_NUMBER = range(1, 1_000_000)
_REPORTS = {
    (b"INFO",): _ANY_NUMBER, (b"LOLWUT",): _ANY_NUMBER,
    (b"CLIENT", b"LIST"): _ANY_NUMBER, (b"CLIENT", b"INFO"): _ANY_NUMBER,
    (b"CLUSTER", b"NODES"): (2,), (b"CLUSTER", b"INFO"): (2,),
    (b"DEBUG", b"HTSTATS"): _ANY_NUMBER, (b"DEBUG", b"HTSTATS-KEY"): _ANY_NUMBER, (b"DEBUG", b"CLIENT-EVICTION"): _ANY_NUMBER,
    (b"LATENCY", b"GRAPH"): (3,), (b"LATENCY", b"DOCTOR"): (2,),
    (b"MEMORY", b"MALLOC-STATS"): _ANY_NUMBER, (b"MEMORY", b"DOCTOR"): _ANY_NUMBER,
    (b"PROXY", b"INFO"): _ANY_NUMBER,
}  # fmt: skip


def printed(command: Sequence[bytes], reply: Reply) -> bytes:
    """The output of redis-cli for `reply` to `command`."""
    return raw(reply) if _is_report(command) else raw(reply) + b"\n"


def raw(reply: Reply) -> bytes:
    """The text of a reply: nil is empty, an error ends with a newline, elements are separated by newlines."""
    match reply:
        case None:
            return b""
        case int():
            return b"%d" % reply
        case bytes():
            return reply
        case list():
            return b"\n".join(raw(element) for element in reply)
        case _:
            # hiredis replaces bytes of an error's text that are not UTF-8.
            return str(reply).encode() + b"\n"


def _is_report(command: Sequence[bytes]) -> bool:
    words = tuple(word.upper() for word in command[:2])
    return any(len(command) in _REPORTS.get(name, ()) for name in (words[:1], words))
