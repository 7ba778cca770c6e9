"""The client over HTTP without a server: items, access, and answers that are not of this API."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import access, items, output
from service.client.api import Api
from service.errors import CallRefused, NothingFound, ServerUnreachable, ServiceError, StartupError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("a=b", '{"a":"b"}'),
        ("a=", '{"a":""}'),
        ("a==", '{"a":"="}'),
        ("a:=1", '{"a":1}'),
        ("a:= [1, 2] ", '{"a": [1, 2] }'),
        ("a=b:=c", '{"a":"b:=c"}'),
        ("a:b=c", '{"a:b":"c"}'),
        (r"a\=b=c", '{"a=b":"c"}'),
        (r"a\:=c", '{"a:":"c"}'),
        (r"a\\=c", r'{"a\\":"c"}'),
        ("runtime.name=r1", '{"runtime.name":"r1"}'),
        ("é=ü", '{"é":"ü"}'),
        ("a[b]=c", '{"a[b]":"c"}'),
        ("a[]:=1", '{"a[]":1}'),
        ("a= @b", '{"a":" @b"}'),
        ('a:="@b"', '{"a":"@b"}'),
        ("@a=b", '{"@a":"b"}'),
    ],
)
def test_an_item_is_a_member(item: str, expected: str) -> None:
    assert items.json_object(items.members([item])) == expected


@pytest.mark.parametrize(
    "item", ["", "a", "=a", ":=1", "a:", "a\\", "a:=", "a:=x", "a:=1 2", "a:=Infinity", "a:=" + "[" * 10**5]
)
def test_other_words_are_no_items(item: str) -> None:
    with pytest.raises(ValueError, match=r"is neither KEY=TEXT nor KEY:=JSON$|has no valid JSON$"):
        items.members([item])


@pytest.fixture
def content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the home directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "file"
    path.write_text('{"é": [1.50]}\n', encoding="utf-8")
    return path


def test_a_value_comes_from_a_file(content: Path) -> None:
    for name in (str(content), "~/file"):
        parsed = items.members([f"a=@{name}", f"b:=@{name}"])
        assert json.loads(parsed["a"]) == '{"é": [1.50]}\n'
        assert parsed["b"] == '{"é": [1.50]}\n'


def test_a_file_that_cannot_be_a_value_is_one_sentence(content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "MAX_FILE_BYTES", 20)
    content.with_name("large").write_bytes(b"1" * 21)
    content.with_name("limit").write_bytes(b"1" * 20)
    content.with_name("binary").write_bytes(b"\xff")
    assert items.members([f"a:=@{content.with_name('limit')}"]) == {"a": "1" * 20}
    for name, sentence in (
        ("missing", "cannot read '{}': No such file or directory"),
        ("", "cannot read '{}': Is a directory"),
        ("large", "'{}' is larger than 20 bytes"),
        ("binary", "'{}' is not UTF-8"),
    ):
        path = content.parent / name
        for separator in ("=", ":="):
            with pytest.raises(ValueError, match=f"^{re.escape(sentence.format(path))}$"):
                items.members([f"a{separator}@{path}"])
    content.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no valid JSON$"):
        items.members([f"a:=@{content}"])


@given(
    st.dictionaries(TEXT.filter(bool), TEXT.filter(lambda text: not text.startswith("@")), max_size=5),
    st.dictionaries(TEXT.filter(bool), st.floats(allow_nan=False)),
)
def test_every_text_and_number_can_be_typed(texts: dict[str, str], numbers: dict[str, float]) -> None:
    def escaped(key: str) -> str:
        return "".join(f"\\{character}" if character in "\\=:" else character for character in key)

    numbers = {key: number for key, number in numbers.items() if key not in texts and abs(number) < 1e300}
    words = [f"{escaped(key)}={text}" for key, text in texts.items()]
    words += [f"{escaped(key)}:={json.dumps(number)}" for key, number in numbers.items()]
    assert json.loads(items.json_object(items.members(words))) == texts | numbers


@pytest.mark.parametrize("text", ["[]", "1", "", "{", '{"a":NaN}', "{} {}"])
def test_the_input_must_be_an_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the input "):
        items.checked_object(text)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "session-configs" / "config.toml"
    path.parent.mkdir()
    path.write_text("url = 'https://configs.example/'\napi_key = 'sk-ac-file'\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def test_the_flag_wins_over_the_environment_and_the_environment_over_the_file(config: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(config.parents[1])}
    assert access.find(None, home) == ("https://configs.example/api/v1", "sk-ac-file")
    environment = home | {"SCC_URL": "http://other:1", "SCC_API_KEY": "sk-ac-other\n"}
    assert access.find(None, environment) == ("http://other:1/api/v1", "sk-ac-other")
    assert access.find("http://flag/x/api/v1/", environment) == ("http://flag/x/api/v1", "sk-ac-other")
    config.unlink()
    assert access.find(None, home | {"SCC_API_KEY": "sk-ac-x"}) == ("http://127.0.0.1:8029/api/v1", "sk-ac-x")


def test_the_file_is_in_the_home_directory_by_default(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = config.parents[1]
    (home / ".config").mkdir()
    config.parent.rename(home / ".config" / "session-configs")
    monkeypatch.setenv("HOME", str(home))
    for environment in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        assert access.find(None, environment).api_key == "sk-ac-file"
    assert capsys.readouterr().err == ""


def test_a_key_that_others_can_read_is_a_warning(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.chmod(0o644)
    assert access.find(None, {"XDG_CONFIG_HOME": str(config.parents[1])}).api_key == "sk-ac-file"
    assert capsys.readouterr().err == f"other users can read the API key in {config}; forbid that with chmod 600\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "^there is no API key: set SCC_API_KEY, or api_key in {}$"),
        ("key = 'x'", "^key in {} is not known; the keys are url and api_key$"),
        ("api_key = 5", "^api_key in {} must be text$"),
        ("api_key = 'a b'", "^the API key .* has characters that no key has$"),
        (
            "api_key = 'x'\nurl = 'ftp://x'",
            "^the URL of the server must be http://HOST:PORT or https://HOST:PORT, not 'ftp://x'$",
        ),
        ("api_key = ", "^cannot read {}: "),
    ],
)
def test_an_error_names_the_file(config: Path, text: str, expected: str) -> None:
    config.write_text(text, encoding="utf-8")
    with pytest.raises(StartupError, match=expected.format(config)):
        access.find(None, {"XDG_CONFIG_HOME": str(config.parents[1])})


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """A server that sends `answer` to one request; yields its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (response(302, b""), ServerUnreachable, "^the response has status 302$"),
        (response(404, b"<html>"), ServerUnreachable, "^the response has status 404$"),
        (response(404, b'{"msg":"no","reason":"route_not_found"}'), CallRefused, "^no$"),
        (response(404, b'{"msg":"no","reason":"session_not_found"}'), NothingFound, "^no$"),
        (response(412, b'{"msg":"no","error":"why","reason":"x"}'), CallRefused, "^no: why$"),
        (response(503, b'{"msg":"later","reason":"overloaded"}'), ServerUnreachable, "^later$"),
        (b"", ServerUnreachable, "does not answer: .*; the write may have been made$"),
        (b"220 mail\r\n", ServerUnreachable, "does not answer: .*; the write may have been made$"),
    ],
)
def test_an_answer_that_is_no_success_is_an_error(answer: bytes, error: type[ServiceError], message: str) -> None:
    with answering(answer) as url, Api(access.Access(url, "sk-ac-x")) as api, pytest.raises(error, match=message):
        api.call("POST", "/session")


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"data":null}',
        b'{"data":{"items":1}}',
        b'{"data":{"items":[]}}',
        b'{"data":{"items":[],"has_more":true}}',
    ],
)
def test_an_answer_of_another_api_is_an_error(body: bytes) -> None:
    expected = pytest.raises(ServerUnreachable, match=r"^the answer is not one of this API; is the URL right\?$")
    with answering(response(200, body)) as url, Api(access.Access(url, "sk-ac-x")) as api, expected:
        list(api.sessions({}))


@pytest.mark.parametrize("session", [b"{}", b"1", b'{"id":1}', b'{"created_at":"x","id":"y"}'])
def test_a_session_of_another_api_is_an_error(session: bytes) -> None:
    with pytest.raises(ServerUnreachable, match=r"^the answer is not one of this API"):
        output.table([session])
