"""The sources of settings: files of settings and secrets, which source wins, and that errors name it."""

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from service import cli
from service.commands.settings import as_toml
from service.errors import StartupError
from service.process.data_dir import with_secrets
from service.setting_sources import Sourced, load, load_with_sources, warnings
from service.settings import SECRETS, Settings, variable
from tests.unit.test_settings import SAMPLES


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "scc.toml"


def from_file(file: Path, text: str, **environment: str) -> Settings:
    file.write_text(text, encoding="utf-8")
    return load({"config": str(file)}, environment)


def as_key(name: str) -> str:
    """A line of TOML that gives a setting its sample."""
    text, value = SAMPLES[name]
    return f"{name} = {text}\n" if isinstance(value, bool | int | float) else f"{name} = '{text}'\n"


@pytest.mark.parametrize("name", SAMPLES)
def test_every_setting_is_read_from_the_file(file: Path, name: str) -> None:
    loaded = getattr(from_file(file, as_key(name)), name)
    assert (loaded, type(loaded)) == (SAMPLES[name][1], type(SAMPLES[name][1]))


def test_a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default(file: Path) -> None:
    file.write_text("port = 1\nworkers = 1\nmax_keys = 1\n", encoding="utf-8")
    environment = {"SCC_PORT": "2", "SCC_WORKERS": "2", "SCC_HOST": "", "SCC_CONFIG": str(file)}
    settings, sources = load_with_sources({"port": "3"}, environment)
    assert (settings.port, settings.workers, settings.max_keys) == (3, 2, 1)
    assert sources == {"port": "--port", "workers": "SCC_WORKERS", "max_keys": f"max_keys in {file}"}


def test_the_flag_of_the_file_wins_over_its_variable(file: Path) -> None:
    assert from_file(file, "port = 1", SCC_CONFIG="/nowhere").port == 1
    with pytest.raises(StartupError, match=r"^--config must not be empty"):
        load({"config": ""}, {"SCC_CONFIG": str(file)})


def test_an_integer_may_stand_for_a_float(file: Path) -> None:
    assert repr(from_file(file, "rate_limit = 5").rate_limit) == "5.0"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1", r"^prot in {} is not a setting; do you mean port\?$"),
        ("Data-Dir = 'x'", r"^Data-Dir in {} is not a setting; do you mean data_dir\?$"),
        ("[limits]\nmax_keys = 1", "^limits in {} is not a setting"),
        ("port = 65536", r"^setting port must be 0 to 65535 \(port in {}\)$"),
        ("port = '1'", r"^setting port must be a whole number \(port in {}\)$"),
        ("port = 1.0", r"^setting port must be a whole number \(port in {}\)$"),
        ("port = true", r"^setting port must be a whole number \(port in {}\)$"),
        ("port = [1]", r"^setting port must be a whole number \(port in {}\)$"),
        ("access_log = 'yes'", r"^setting access_log must be true or false \(access_log in {}\)$"),
        ("access_log = 1", r"^setting access_log must be true or false \(access_log in {}\)$"),
        ("host = 1", r"^setting host must be text \(host in {}\)$"),
        ("data_dir = 1", r"^setting data_dir must be text \(data_dir in {}\)$"),
        ("data_dir = ''", "^data_dir in {} must not be empty"),
        ("fsync = 'never'", r"^setting fsync must be always, everysec, no \(fsync in {}\)$"),
        ("max_memory = 1", r"^setting max_memory must be 0, or 8,000,000 or more \(max_memory in {}\)$"),
        ("rate_limit = 0.0001", r"^setting rate_limit must be 0, or 0.001 to 100,000 \(rate_limit in {}\)$"),
        ("command_timeout = inf", r"^setting command_timeout must be more than 0 \(command_timeout in {}\)$"),
        ("start_timeout = nan", r"^setting start_timeout must be 0 or more \(start_timeout in {}\)$"),
        ("root_token = 5", r"^setting root_token must be text \(root_token in {}\)$"),
        ("port = ", "^cannot read {}: Invalid value"),
        ("port = 1\nport = 2", "^cannot read {}: Cannot overwrite a value"),
        ("a = " + "[" * 5000, "^cannot read {}: "),
    ],
)
def test_an_error_names_the_file_and_the_key(file: Path, text: str, expected: str) -> None:
    with pytest.raises(StartupError, match=expected.format(file)):
        from_file(file, text)


def test_a_file_that_cannot_be_read_is_refused(file: Path) -> None:
    with pytest.raises(StartupError, match=f"^cannot read {file}: No such file"):
        load({"config": str(file)}, {})
    file.write_bytes(b"host = '\xff'")
    with pytest.raises(StartupError, match=f"^cannot read {file}: "):
        load({"config": str(file)}, {})


@pytest.mark.parametrize(
    ("name", "text", "secret"),
    [
        ("root_token", "hush", "hush"),
        ("root_token", " hush\n\n", "hush"),
        ("key_secret", "hush\n", "hush"),
        ("key_secret", "hush\r\n", "hush"),
        ("key_secret", " hush \n\n", " hush \n"),
    ],
)
def test_a_secret_is_read_from_the_file_that_a_variable_names(file: Path, name: str, text: str, secret: str) -> None:
    file.write_bytes(text.encode())
    settings, sources = load_with_sources({}, {f"{variable(name)}_FILE": str(file)})
    assert getattr(settings, name) == secret
    assert sources == {name: f"{variable(name)}_FILE ({file})"}
    assert not [line for line in warnings(settings, {f"{variable(name)}_FILE": str(file)}) if "ignored" in line]


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_file_that_cannot_be_used_is_refused_by_its_variable(file: Path, name: str) -> None:
    environment = {f"{variable(name)}_FILE": str(file)}
    for content, problem in ((None, "No such file"), (b"", "is empty"), (b"\n", "is empty"), (b"\xff", "not UTF-8")):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(StartupError, match=rf"{file}.*{problem}.*\({variable(name)}_FILE\)"):
            load({}, environment)
    with pytest.raises(StartupError, match=f"^{variable(name)} and {variable(name)}_FILE are both set"):
        load({}, environment | {variable(name): "hush"})


def test_the_settings_are_printed_as_a_file_that_gives_the_same_settings(file: Path) -> None:
    environment = {variable(name): text for name, (text, _) in SAMPLES.items()}
    loaded = load_with_sources({}, environment)
    printed = as_toml(loaded)
    expected = {name: getattr(loaded.settings, name) for name in SAMPLES if name not in SECRETS}
    assert tomllib.loads(printed) == expected | {"data_dir": str(loaded.settings.data_dir)}
    assert [line.rpartition("  # ")[2] for line in printed.splitlines()] == [variable(item.name) for item in fields(Settings)]
    # Secrets are comments: as settings, they would be keys that everybody knows.
    assert [line.split()[:4] for line in printed.splitlines() if "***" in line] == [
        ["#", name, "=", '"***"'] for name in SECRETS
    ]
    assert load({}, environment) == from_file(file, printed, SCC_ROOT_TOKEN="xyz", SCC_KEY_SECRET="hush")


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://u:hush@h:1/0?password=hush&db=1", "redis://***@h:1/0?***"),
        ("redis://:hu/s#h@h", "redis://***@h"),
        (":hush@h", "***@h"),
        ("hu://sh@h", "***@h"),
        ("redis+sentinel://u:hush@a:1,b:2/name?sentinel_password=hush", "redis+sentinel://***@a:1,b:2/name?***"),
        ("redis+cluster://u:hush@a:1,u:hush@b:2", "redis+cluster://***@b:2"),
        ("unix://:hush@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("redis://h?hush?hush", "redis://h?***"),
        # A ? or @ that should be escaped.
        ("redis+sentinel://h:26379/m?sentinel_password=hu@sh", "redis+sentinel://***"),
        ("redis://:hush@h/0?a=hu@sh", "redis://***"),
        ("redis://:hu?sh@h", "redis://***"),
        ("rediss://:hu/s@hu?sh@h", "rediss://***"),
        ("hu?sh@h", "***"),
    ],
)
def test_a_url_with_passwords_is_a_comment_without_them(url: str, masked: str) -> None:
    printed = as_toml(Sourced(Settings(redis_url=url), {}))
    assert f'\n# redis_url = "{masked}" ' in printed
    assert "redis_url" not in tomllib.loads(printed)


@pytest.mark.parametrize("host", ["a\x7fb", 'a"b', "a\\b", "a\nb", "\u00e9\u2028"])
def test_any_text_is_printed_as_toml(host: str) -> None:
    assert tomllib.loads(as_toml(Sourced(Settings(host=host), {})))["host"] == host


def test_the_source_of_a_generated_secret_is_its_file(tmp_path: Path) -> None:
    with_secrets(Settings(data_dir=tmp_path, root_token="given"))
    lines = as_toml(Sourced(Settings(data_dir=tmp_path), {})).splitlines()
    secrets = {
        line.partition("  # ")[0].strip(): line.rpartition("  # ")[2] for line in lines if "secret" in line or "token" in line
    }
    assert secrets == {'root_token = ""': "default", '# key_secret = "***"': str(tmp_path / "key-secret")}


def test_a_url_without_passwords_is_printed() -> None:
    printed = as_toml(Sourced(Settings(redis_url="redis://h:1/0"), {}))
    assert tomllib.loads(printed)["redis_url"] == "redis://h:1/0"


def test_the_command_prints_what_flags_variables_and_file_give(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text("max_keys = 5", encoding="utf-8")
    monkeypatch.setenv("SCC_HOST", "::1")
    monkeypatch.setenv("SCC_PROT", "1")
    assert cli.main(["settings", "--config", str(file), "--port", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == "SCC_PROT is ignored: it is not a setting\n"
    lines = [line.split("  # ") for line in out.splitlines()]
    sources = {text.strip(): source for text, source in lines}
    assert sources["max_keys = 5"] == f"max_keys in {file}"
    assert sources['host = "::1"'] == "SCC_HOST"
    assert sources["port = 1"] == "--port"
    assert sources['fsync = "everysec"'] == "default"
    assert cli.main(["settings", "--port", "x"]) == 1
    assert capsys.readouterr() == ("", "setting port must be a whole number (--port)\n")
