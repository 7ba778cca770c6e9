"""API keys in the log: masked wherever they stand and however they are spelled."""

import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.process.logs import MaskingFormatter, masked

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


def test_a_traceback_is_masked_too() -> None:
    try:
        raise KeyError(KEY)
    except KeyError as error:
        record = logging.LogRecord("service", logging.ERROR, __file__, 1, "%s failed", (f"/{KEY}/x",), (KeyError, error, None))
    text = MaskingFormatter().format(record)
    assert "KeyError" in text
    assert SECRET not in text
