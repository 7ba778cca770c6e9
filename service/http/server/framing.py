"""Where the messages in a stream of bytes can end. aiohttp's parser does not tell how much of a head it has."""

#: Ends every head and every chunked body (RFC 9112, 2.1 and 7.1).
EMPTY_LINE = b"\r\n\r\n"


def complete_part(before: bytes, data: bytes) -> int:
    """How many bytes of `data` come before the end of its last empty line; 0 where it ends none.

    Behind an empty line no head is incomplete: there ends a message, or a body goes on. `before` are the last bytes, up to
    three, that came before `data`.
    """
    start = data.rfind(EMPTY_LINE)
    if start >= 0:
        return start + len(EMPTY_LINE)
    start = (before + data[:3]).rfind(EMPTY_LINE)
    return start + len(EMPTY_LINE) - len(before) if start >= 0 else 0
