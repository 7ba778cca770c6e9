"""Where the messages in a stream of bytes can end. aiohttp's parser does not say how much of a head it has buffered."""

#: Ends every head and every chunked body (RFC 9112, 2.1 and 7.1).
EMPTY_LINE = b"\r\n\r\n"


def complete_prefix(tail: bytes, data: bytes) -> int:
    """How many bytes of `data` precede the end of its last empty line; 0 where no empty line ends in it.

    No head is incomplete at the end of an empty line: a message ends there, or a body continues. `tail` are the last bytes, up
    to three, received before `data`.
    """
    start = data.rfind(EMPTY_LINE)
    if start >= 0:
        return start + len(EMPTY_LINE)
    start = (tail + data[:3]).rfind(EMPTY_LINE)
    return start + len(EMPTY_LINE) - len(tail) if start >= 0 else 0
