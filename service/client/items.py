r"""Members of a JSON object as words of a command line, in the notation of HTTPie.

    model=gpt-5         a string
    temperature:=0.3    JSON: a number, true, false, null, an array, an object
    prompt=@file        the text of a file
    tools:=@file        the JSON of a file
    a\=b=c              a backslash before = or : in a key

JSON is sent as it was typed: no number is converted. Every other notation of HTTPie is a part of the key or the value.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from service.configs.limits import Limits

#: Bytes of a file at most: by default, a server accepts no larger body.
MAX_FILE_BYTES = Limits().max_body_bytes

#: Key, separator, value. The first separator counts.
_ITEM = re.compile(r"((?:\\.|[^\\=:]|:(?!=))+)(:?=)(.*)", re.DOTALL)


def members(items: Iterable[str]) -> dict[str, str]:
    """The members that the items name: key → JSON.

    Raises:
        ValueError: an item is not valid, its file cannot be read, or a key occurs twice; the message says which.
    """
    parsed: dict[str, str] = {}
    for item in items:
        match = _ITEM.fullmatch(item)
        if match is None:
            raise ValueError(f"{item!a} is neither KEY=TEXT nor KEY:=JSON")
        key = re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)
        if key in parsed:
            raise ValueError(f"the key {key!a} occurs twice")
        value = _content(match[3][1:]) if match[3].startswith("@") else match[3]
        parsed[key] = _quoted(value) if match[2] == "=" else _checked(value, f"{item!a}")
    return parsed


def _content(name: str) -> str:
    """The text of a file; `~` is the home directory, which a shell does not replace within a word."""
    try:
        with open(os.path.expanduser(name), "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {name!a}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{name!a} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{name!a} is not UTF-8") from None


def json_object(parsed: Mapping[str, str]) -> str:
    """The JSON object with these members."""
    return "{" + ",".join(f"{_quoted(key)}:{value}" for key, value in parsed.items()) + "}"


def checked_object(text: str) -> str:
    """`text`, if it is a JSON object.

    Raises:
        ValueError: it is not.
    """
    if not _checked(text, "the input").lstrip().startswith("{"):
        raise ValueError("the input is not a JSON object")
    return text


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _checked(text: str, place: str) -> str:
    """`text`, if it is one JSON value."""
    try:
        # Only the syntax matters: numbers stay text.
        json.loads(text, parse_float=str, parse_int=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError(f"{place} has no valid JSON") from None
    return text


def _refuse(constant: str) -> NoReturn:
    """NaN and Infinity are no JSON."""
    raise ValueError(constant)
