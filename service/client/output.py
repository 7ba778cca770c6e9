"""How the client prints sessions and values: for a terminal, or for another program."""

import json
import re
import shutil
import sys
from collections.abc import Iterable

from service.client.answer import member, text

#: Characters that a terminal may take for commands, or that change the direction of text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_HEADER = ("ID", "CREATED", "CONFIGS")


def say(text: str) -> None:
    """Print a line, and do not keep it back."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def plain(value: bytes) -> str:
    """A JSON value for a shell: a string without its quotes, anything else as it is."""
    json_text = value.decode()
    return str(json.loads(json_text)) if json_text.startswith('"') else json_text


def one_line(session: bytes) -> str:
    """A session as one line of JSON. The line breaks in stored configs are insignificant white space."""
    return session.decode().replace("\n", "")


def table(sessions: Iterable[bytes], width: int | None = None) -> str:
    """The sessions as a table; configs that are too long for the terminal are cut off."""
    width = shutil.get_terminal_size().columns if width is None else width
    rows = [_HEADER, *(_row(session) for session in sessions)]
    return "\n".join(_cut(f"{row[0]:36}  {row[1]:19}  {row[2]}", width) for row in rows)


def _row(session: bytes) -> tuple[str, str, str]:
    created = text(session, "created_at")[:19].replace("T", " ")
    return text(session, "id"), created, one_line(member(session, "configs"))


def _cut(line: str, width: int) -> str:
    line = _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line)
    return line if len(line) <= width else line[: width - 1] + "…"
