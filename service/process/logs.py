"""The log of the process: text or JSON, with API keys masked wherever they appear: in a message, a path or a traceback."""

import json
import logging
import re
from datetime import UTC, datetime

from service.settings import Settings

#: The prefix of every key, each character plain or percent-encoded, even repeatedly; and the rest of the word.
_KEY = re.compile("".join(f"(?:{re.escape(char)}|%(?:25)*{ord(char):02x})" for char in "sk-ac-") + r"\S*", re.IGNORECASE)


def masked(text: str) -> str:
    """`text` with everything that looks like an API key replaced after its prefix."""
    return _KEY.sub("sk-ac-***", text)


class Event(dict[str, str | int | float]):
    """A message of named values: as text `name=value name=value`, in JSON members of the object."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.items())


class TextFormatter(logging.Formatter):
    """A line with time, level and message; a traceback takes further lines."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Format one record, with its API keys masked."""
        return masked(super().format(record))


class JsonFormatter(logging.Formatter):
    """A line with a JSON object: time, level, then the values of an event, or a message and perhaps a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record, with its API keys masked."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
        }
        if isinstance(record.msg, Event):
            fields |= {name: masked(value) if isinstance(value, str) else value for name, value in record.msg.items()}
        else:
            fields["message"] = masked(record.getMessage())
        if record.exc_info:
            fields["traceback"] = masked(self.formatException(record.exc_info))
        # Not orjson, which refuses surrogates: the name of a file may have some.
        return json.dumps(fields)


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def configure(settings: Settings) -> None:
    """Log to standard error, in the format and from the level of the settings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[settings.log_format]())
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
