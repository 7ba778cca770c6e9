"""Settings: a flag wins over the environment, the environment over the default, and what cannot work is refused by name."""

from argparse import ArgumentParser
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from service.errors import StartupError
from service.settings import Settings, add_flags, flag, load, variable

#: For each setting a text, and the value that it becomes; none is the default.
SAMPLES: dict[str, tuple[str, object]] = {
    "max_configs_bytes": ("1000", 1000),
    "max_body_bytes": ("2000", 2000),
    "max_nesting": ("256", 256),
    "max_keys": ("7", 7),
    "max_terms": ("9", 9),
    "max_user_bytes": ("64", 64),
    "max_filter_values": ("10", 10),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - only read
    "port": ("0", 0),
    "workers": ("256", 256),
    "redis_url": ("redis://localhost:6380/1", "redis://localhost:6380/1"),
    "data_dir": ("/var/lib/scc", Path("/var/lib/scc")),
    "fsync": ("always", "always"),
    "redis_server": ("/usr/bin/redis-server", "/usr/bin/redis-server"),
    "root_token": ("xyz", "xyz"),
    "key_secret": ("hush", "hush"),
    "partitions": ("16", 16),
    "min_replicas": ("1", 1),
    "start_timeout": ("5", 5.0),
    "command_timeout": ("0.25", 0.25),
    "shutdown_timeout": ("0", 0.0),
    "client_timeout": ("2.5", 2.5),
    "max_connections": ("100", 100),
    "max_in_flight": ("10", 10),
    "rate_limit": ("0.5", 0.5),
    "rate_burst": ("20", 20),
    "access_log": ("true", True),
}
SECRETS = ("root_token", "key_secret")
NAMES = [item.name for item in fields(Settings)]


def parser() -> ArgumentParser:
    made = ArgumentParser(allow_abbrev=False)
    add_flags(made)
    return made


def test_every_setting_has_a_sample_here_and_a_sentence_of_help() -> None:
    assert sorted(SAMPLES) == sorted(NAMES)
    assert [item.name for item in fields(Settings) if not item.metadata.get("help")] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_read_from_the_environment(name: str) -> None:
    text, value = SAMPLES[name]
    assert getattr(load(environment={}), name) != value
    loaded = load(environment={variable(name): text})
    assert getattr(loaded, name) == value
    assert type(getattr(loaded, name)) is type(value)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SECRETS])
def test_every_setting_but_the_secrets_is_read_from_its_flag(name: str) -> None:
    text, value = SAMPLES[name]
    assert getattr(load(parser().parse_args([flag(name), text]), {}), name) == value


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_has_no_flag_that_a_process_listing_would_show(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([flag(name), "hush"])
    assert f"unrecognized arguments: {flag(name)}" in capsys.readouterr().err


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_default() -> None:
    environment = {"SCC_PORT": "1", "SCC_HOST": "::1"}
    loaded = load(parser().parse_args(["--port", "2"]), environment)
    assert (loaded.port, loaded.host, loaded.fsync) == (2, "::1", "everysec")


def test_a_flag_can_make_a_setting_empty_again() -> None:
    loaded = load(parser().parse_args(["--redis-url", ""]), {"SCC_REDIS_URL": "redis://elsewhere"})
    assert loaded.redis_url == ""


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCC_PORT", "81")
    assert load().port == 81


def test_names_that_are_no_settings_change_nothing() -> None:
    assert load(environment={"PORT": "1", "SCC_PROT": "1", "scc_port": "1"}) == load(environment={})


def test_the_defaults_are_those_of_the_contract() -> None:
    default = load(environment={})
    assert default.port == 8029
    assert (default.max_configs_bytes, default.max_body_bytes) == (256 * 1024, 1024 * 1024)
    assert (default.max_nesting, default.max_keys, default.max_terms, default.max_user_bytes) == (64, 1024, 4096, 256)
    assert default.command_timeout == 1.0
    assert default.workers >= 1


@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "TRUE", "On"])
def test_a_boolean_is_true_in_the_usual_words(text: str) -> None:
    assert load(environment={"SCC_ACCESS_LOG": text}).access_log is True


@pytest.mark.parametrize("text", ["0", "false", "no", "off", "", "False"])
def test_a_boolean_is_false_in_the_usual_words(text: str) -> None:
    assert load(environment={"SCC_ACCESS_LOG": text}).access_log is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("port", "workers", "partitions", "max_keys") for text in ("", "x", "1.5", "-1", "1e3")),
        *((name, "0") for name in NAMES if name.startswith("max_")),
        *((name, "-1") for name in NAMES if name.startswith("max_")),
        *(("port", text) for text in ("65536", "0x50", "9" * 5000)),
        *(("workers", text) for text in ("0", "257")),
        *(("partitions", text) for text in ("0", "1025")),
        ("max_nesting", "257"),
        *(("fsync", text) for text in ("", "Always", "never")),
        *(("command_timeout", text) for text in ("0", "-1", "", "1s", "nan", "inf")),
        *(("shutdown_timeout", text) for text in ("-0.1", "nan", "inf")),
        *(("client_timeout", text) for text in ("0", "-1", "", "nan", "inf")),
        *(("rate_limit", text) for text in ("-1", "0.0001", "100001", "", "nan", "inf")),
        *(("rate_burst", text) for text in ("-1", "1000001", "1.5")),
        *(("access_log", text) for text in ("2", "maybe", "tru", " ")),
    ],
)
def test_what_cannot_work_is_refused_by_the_name_of_the_setting(name: str, text: str) -> None:
    with pytest.raises(StartupError, match=rf"^setting {name} "):
        load(environment={variable(name): text})


def test_settings_cannot_be_changed() -> None:
    loaded = load(environment={})
    for name in NAMES:
        with pytest.raises(FrozenInstanceError):
            setattr(loaded, name, getattr(loaded, name))
