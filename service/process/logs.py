"""The log of the process: one format, and API keys masked wherever a client, a path or a traceback puts them."""

import logging
import re

#: What every key begins with, each character as it is or percent-encoded, also more than once; and the rest of the word.
_KEY = re.compile("".join(f"(?:{re.escape(char)}|%(?:25)*{ord(char):02x})" for char in "sk-ac-") + r"\S*", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with everything that looks like an API key cut off behind its prefix."""
    return _KEY.sub("sk-ac-***", text)


class MaskingFormatter(logging.Formatter):
    """A formatter whose lines, tracebacks included, hold no API key."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return masked(super().format(record))


def configure() -> None:
    """Log to standard error, from INFO on, with the time."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def configure_access_log() -> None:
    """The lines of the logger `service.access` go to standard error as they are."""
    handler = logging.StreamHandler()
    handler.setFormatter(MaskingFormatter())
    access = logging.getLogger("service.access")
    access.propagate = False
    access.setLevel(logging.INFO)
    access.addHandler(handler)
