"""The log of the process: one format, with API keys masked wherever they appear: in a message, a path or a traceback."""

import logging
import re

#: The prefix of every key, each character plain or percent-encoded, even repeatedly; and the rest of the word.
_KEY = re.compile("".join(f"(?:{re.escape(char)}|%(?:25)*{ord(char):02x})" for char in "sk-ac-") + r"\S*", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with everything that looks like an API key replaced after its prefix."""
    return _KEY.sub("sk-ac-***", text)


class MaskingFormatter(logging.Formatter):
    """A formatter that masks API keys, in tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record, with its API keys masked."""
        return masked(super().format(record))


def configure() -> None:
    """Log to standard error, with the time, at level INFO and above."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def configure_access_log() -> None:
    """Write the messages of the logger `service.access` to standard error, without time or level."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter())
    access = logging.getLogger("service.access")
    access.propagate = False
    access.setLevel(logging.INFO)
    access.addHandler(handler)
