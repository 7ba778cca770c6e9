"""API keys in the log: masked wherever they stand and however they are spelled."""

import json
import logging
import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from service.http.server import headers
from service.process import logs
from service.process.logs import Event, JsonFormatter, TextFormatter, masked
from service.settings import Settings

SECRET = "Zq7-_x"
KEY = f"sk-ac-{SECRET}"

#: Every character as it is, or percent-encoded once or several times.
spellings = st.tuples(*(
    st.sampled_from([char, f"%{ord(char):02x}", f"%{ord(char):02X}", f"%25{ord(char):02x}", f"%2525{ord(char):02X}"])
    for char in "sk-ac-"
)).map("".join)  # fmt: skip


@given(prefix=spellings, before=st.text("abcs-%2/", max_size=20), after=st.text("abcs-%2/", max_size=5))
def test_a_key_in_a_path_is_masked_however_it_is_encoded(prefix: str, before: str, after: str) -> None:
    line = masked(f"4f GET /{before}{prefix}{SECRET}{after} 404 0.1 ms")
    assert SECRET not in line
    assert line.startswith("4f GET /")
    assert line.endswith("sk-ac-*** 404 0.1 ms")


@pytest.mark.parametrize(
    "text", ["", "GET /api/v1/session/7d8d2b7a/configs 200 1.0 ms", "/api/v1/sk-a", "%", "%25%25", "task ac- sk ac", "%73%6B"]
)
def test_text_without_a_key_is_unchanged(text: str) -> None:
    assert masked(text) == text


@pytest.mark.parametrize("token", ["xyz", "a/b?c", "'\"`%", "~" * 250])
def test_the_whole_key_is_masked_whatever_its_characters_are(token: str) -> None:
    for key in (
        f"sk-ac-{token}",
        quote(f"sk-ac-{token}", safe=""),
        "".join(f"%{byte:02X}" for byte in f"sk-ac-{token}".encode()),
    ):
        assert masked(f"GET /api/v1/{key} 404") == "GET /api/v1/sk-ac-*** 404"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_a_traceback_is_masked_too(formatter: logging.Formatter) -> None:
    try:
        raise KeyError(KEY)
    except KeyError as error:
        record = logging.LogRecord("service", logging.ERROR, __file__, 1, "%s failed", (f"/{KEY}/x",), (KeyError, error, None))
    text = formatter.format(record)
    assert "KeyError" in text
    assert SECRET not in text


def record(message: object, *values: object) -> logging.LogRecord:
    return logging.LogRecord("service", logging.WARNING, __file__, 1, message, values, None)


@given(st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.integers(), st.just(KEY))))
def test_a_line_of_json_is_one_line_with_every_value_of_an_event(values: dict[str, str | int]) -> None:
    line = JsonFormatter().format(record(Event(values)))
    assert "\n" not in line
    logged = json.loads(line)
    expected = {name: masked(value) if isinstance(value, str) else value for name, value in values.items()}
    assert {name: logged[name] for name in expected} == expected
    assert SECRET not in line


@given(st.text(st.characters(codec=None, categories=("L", "N", "P", "Cs"))))
def test_a_message_of_any_text_is_one_line_of_json(text: str) -> None:
    logged = json.loads(JsonFormatter().format(record("%s failed", text)))
    assert (logged["level"], logged["message"]) == ("warning", masked(f"{text} failed"))


def test_a_line_of_text_has_time_level_and_the_values_of_an_event() -> None:
    line = TextFormatter().format(record(Event(status=200, route=f"/x/{KEY}")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING status=200 route=/x/sk-ac-\*\*\*", line)


def test_the_settings_choose_format_and_level(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        root.handlers.clear()
        logs.configure(Settings(log_format="json", log_level="warning"))
        logging.getLogger("service").info("dropped")
        logging.getLogger("service").warning("kept")
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    assert [json.loads(line)["message"] for line in capfd.readouterr().err.splitlines()] == ["kept"]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def traceparents(*values: str) -> headers.Headers:
    """The headers of a request with these traceparents."""
    return CIMultiDictProxy(CIMultiDict((headers.TRACEPARENT, value) for value in values))


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (TRACE, TRACE),
        (f"01{TRACE[2:]}", f"01{TRACE[2:]}"),
        (f"cc{TRACE[2:]}-later-fields", f"cc{TRACE[2:]}"),
    ],
)
def test_a_traceparent_is_passed_on_in_server_timing(text: str, fields: str) -> None:
    match = headers.traceparent(traceparents(text))
    assert match is not None
    assert match["trace"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert headers.server_timing(traceparents(text)) == f'Server-Timing: traceparent;desc="{fields}"\r\n'.encode()


@pytest.mark.parametrize(
    "text", ["", TRACE.upper(), f"{TRACE}-x", f"ff{TRACE[2:]}", f"00-{'0' * 32}-00f067aa0ba902b7-01",
             f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", f"{TRACE}\n", 'x"\r\nX: y', f"cc{TRACE[2:]}x",
             f"cc{TRACE[2:]}-\r\nX: y"]
)  # fmt: skip
def test_an_invalid_traceparent_is_ignored(text: str) -> None:
    assert headers.traceparent(traceparents(text)) is None
    assert headers.server_timing(traceparents(text)) == b""


def test_of_two_traceparents_none_is_passed_on() -> None:
    assert headers.server_timing(traceparents(TRACE, TRACE)) == b""
