"""Settings: a flag wins over the environment, the environment over the default; an error names the invalid setting."""

from collections.abc import Collection
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import click
import pytest

from service.commands._parameters import FLAGS, setting_flags
from service.errors import StartupError
from service.setting_sources import load, warnings
from service.settings import CONNECTION, PATHS, SECRETS, Settings, flag, variable
from service.store.api_keys import KEY_MAX, KEY_PREFIX

#: For each setting a text and its value, which is not the default.
SAMPLES: dict[str, tuple[str, object]] = {
    "max_configs_bytes": ("1000", 1000),
    "max_body_bytes": ("2000", 2000),
    "max_line_bytes": ("10000", 10000),
    "max_head_bytes": ("8192", 8192),
    "max_nesting": ("256", 256),
    "max_keys": ("7", 7),
    "max_terms": ("9", 9),
    "max_sessions": ("1000", 1000),
    "max_users": ("100", 100),
    "max_user_bytes": ("64", 64),
    "max_filter_values": ("10", 10),
    "max_page_bytes": ("1", 1),
    "max_list_candidates": ("100", 100),
    "max_list_bytes": ("3000", 3000),
    "max_list_comparisons": ("5", 5),
    "host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - only read
    "port": ("0", 0),
    "admin_host": ("0.0.0.0", "0.0.0.0"),  # noqa: S104 - only read
    "admin_port": ("8030", 8030),
    "workers": ("256", 256),
    "redis_url": ("redis://localhost:6380/1", "redis://localhost:6380/1"),
    "data_dir": ("/var/lib/scc", Path("/var/lib/scc")),
    "fsync": ("always", "always"),
    "max_memory": ("0", 0),
    "redis_server": ("/usr/bin/redis-server", "/usr/bin/redis-server"),
    "root_token": ("xyz", "xyz"),
    "key_secret": ("hush", "hush"),
    "replace_root_key": ("true", True),
    "partitions": ("16", 16),
    "min_replicas": ("1", 1),
    "start_timeout": ("5", 5.0),
    "command_timeout": ("0.25", 0.25),
    "shutdown_timeout": ("0", 0.0),
    "client_timeout": ("2.5", 2.5),
    "max_connections": ("100", 100),
    "max_buffered_bytes": ("1048576", 1_048_576),
    "max_in_flight": ("10", 10),
    "rate_limit": ("0.5", 0.5),
    "rate_burst": ("20", 20),
    "access_log": ("true", True),
    "log_format": ("json", "json"),
    "log_level": ("warning", "warning"),
    "otel": ("true", True),
}
#: Limits that 0 disables.
UNLIMITED = ("max_memory", "max_sessions", "max_users")
NAMES = [item.name for item in fields(Settings)]


def parsed(*words: str, names: Collection[str] = FLAGS) -> dict[str, str]:
    """What a command with the flags of these settings collects from `words`."""
    flags: dict[str, str] = {}
    command = click.command()(setting_flags(names)(lambda: None))
    command.make_context("serve", list(words), obj=flags)
    return flags


def test_every_setting_has_a_sample_here_and_a_help_text() -> None:
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
    assert getattr(load(parsed(flag(name), text), {}), name) == value


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_has_no_flag_that_a_process_listing_would_show(name: str) -> None:
    with pytest.raises(click.NoSuchOption, match=flag(name)):
        parsed(flag(name), "hush")


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_default() -> None:
    environment = {"SCC_PORT": "1", "SCC_HOST": "::1"}
    loaded = load(parsed("--port", "2"), environment)
    assert (loaded.port, loaded.host, loaded.fsync) == (2, "::1", "everysec")


@pytest.mark.parametrize("name", ["redis_url", "redis_server"])
def test_a_flag_can_make_a_setting_empty_again_if_empty_is_valid(name: str) -> None:
    assert getattr(load(parsed(flag(name), ""), {variable(name): "redis://elsewhere"}), name) == ""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*SECRETS, "redis_url", "redis_server")])
def test_an_empty_flag_is_refused_by_its_name(name: str) -> None:
    with pytest.raises(StartupError, match=f"^{flag(name)} must not be empty"):
        load(parsed(flag(name), ""), {})


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_counts_as_unset(name: str) -> None:
    assert load(environment={variable(name): ""}) == load(environment={})


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*PATHS, "key_secret")])
def test_white_space_around_a_variable_is_ignored(name: str) -> None:
    text, value = SAMPLES[name]
    assert getattr(load(environment={variable(name): f" {text}\n"}), name) == value
    assert load(environment={variable(name): "\n"}) == load(environment={})


def test_a_key_secret_is_used_byte_for_byte() -> None:
    assert load(environment={"SCC_KEY_SECRET": " hush\n"}).key_secret == " hush\n"


@pytest.mark.parametrize("name", PATHS)
def test_a_path_may_contain_any_bytes(name: str) -> None:
    assert str(getattr(load(environment={variable(name): "/tmp/\udcff"}), name)) == "/tmp/\udcff"  # noqa: S108 - only read


def test_text_that_the_locale_cannot_decode_is_read_as_utf_8() -> None:
    assert load(environment={"SCC_KEY_SECRET": "\udcc3\udca9"}).key_secret == "é"


def test_the_longest_root_token_fits_into_the_longest_key() -> None:
    assert len(KEY_PREFIX + load(environment={"SCC_ROOT_TOKEN": "~" * 250}).root_token) == KEY_MAX


@pytest.mark.parametrize("text", ["tcp://10.0.0.1:8029", "udp://[fd00::1]:53", "sctp://10.0.0.1:1"])
def test_the_port_of_a_kubernetes_service_is_ignored_with_a_warning(text: str) -> None:
    environment = {"SCC_PORT": text, "SCC_PORT_8029_TCP_ADDR": "10.0.0.1", "SCC_SERVICE_HOST": "10.0.0.1"}
    loaded = load(environment=environment)
    assert loaded == load(environment={})
    ignored = warnings(loaded, environment)
    assert [line.split()[0] for line in ignored] == ["SCC_PORT_8029_TCP_ADDR", "SCC_SERVICE_HOST", "SCC_PORT"]
    assert all("ignored" in line and "10.0.0.1" not in line for line in ignored)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, []),
        ({"PORT": "1", "scc_port": "1", "SCC_PORT": "1", "SCC_HOST": ""}, []),
        ({"SCC_PROT": "hidden"}, ["SCC_PROT is ignored: it is not a setting"]),
        ({"SCC_A\nB": "hidden", "SCC_\udcff": ""}, [r"SCC_A\nB is ignored", r"SCC_\udcff is ignored"]),
        ({"SCC_ROOT_TOKEN": "hidden"}, ["SCC_ROOT_TOKEN is shorter than 16 characters"]),
        ({"SCC_ROOT_TOKEN": "hidden-" + "x" * 9}, []),
        ({"SCC_KEY_SECRET": "hidden"}, ["SCC_KEY_SECRET is shorter"]),
        ({"SCC_KEY_SECRET": "hidden-" + "x" * 9 + "\n"}, ["SCC_KEY_SECRET starts or ends with white space"]),
    ],
)
def test_each_ignored_or_unsafe_variable_gets_one_warning_without_its_value(
    environment: dict[str, str], expected: list[str]
) -> None:
    lines = warnings(load(environment=environment), environment)
    assert [line[: len(start)] for line, start in zip(lines, expected, strict=True)] == expected
    assert "hidden" not in "".join(lines)


def test_a_warning_about_a_secret_in_a_file_names_the_variable_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("hidden", encoding="utf-8")
    environment = {"SCC_ROOT_TOKEN_FILE": str(file)}
    (line,) = warnings(load(environment=environment), environment)
    assert line.startswith("SCC_ROOT_TOKEN_FILE is shorter than")


def test_flags_can_be_those_of_a_connection_alone() -> None:
    assert parsed(names=CONNECTION) == {}
    assert parsed("--data-dir", "d", names=CONNECTION) == {"data_dir": "d"}
    with pytest.raises(click.NoSuchOption, match="--port"):
        parsed("--port", "1", names=CONNECTION)


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCC_PORT", "81")
    assert load().port == 81


def test_unknown_names_change_nothing() -> None:
    assert load(environment={"PORT": "1", "SCC_PROT": "1", "scc_port": "1"}) == load(environment={})


def test_the_defaults_are_those_of_the_contract() -> None:
    default = load(environment={})
    assert default.port == 8029
    assert (default.max_configs_bytes, default.max_body_bytes) == (256 * 1024, 1024 * 1024)
    assert (default.max_line_bytes, default.max_head_bytes) == (64 * 1024, 32 * 1024)
    assert (default.max_nesting, default.max_keys, default.max_terms, default.max_user_bytes) == (64, 1024, 512, 256)
    assert default.command_timeout == 1.0
    assert default.workers >= 1


@pytest.mark.parametrize("text", ["1", "true", "yes", "on", "TRUE", "On"])
def test_the_usual_words_for_true_are_accepted(text: str) -> None:
    assert load(environment={"SCC_ACCESS_LOG": text}).access_log is True


def test_a_boolean_flag_without_a_value_means_true() -> None:
    assert load(parsed("--replace-root-key", "--port", "1"), {}).replace_root_key is True
    assert load(parsed("--replace-root-key", "false"), {}).replace_root_key is False


@pytest.mark.parametrize("text", ["0", "false", "no", "off", "False"])
def test_the_usual_words_for_false_are_accepted(text: str) -> None:
    assert load(environment={"SCC_ACCESS_LOG": text}).access_log is False


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, text) for name in ("port", "workers", "partitions", "max_keys") for text in ("x", "1.5", "-1", "1e3")),
        *((name, "0") for name in NAMES if name.startswith("max_") and name not in UNLIMITED),
        ("max_memory", "7999999"),
        *((name, "-1") for name in NAMES if name.startswith("max_")),
        *(("port", text) for text in ("65536", "0x50", "9" * 5000)),
        *(("workers", text) for text in ("0", "257")),
        *(("partitions", text) for text in ("0", "1025")),
        ("max_nesting", "257"),
        *(("fsync", text) for text in ("Always", "never")),
        *(("command_timeout", text) for text in ("0", "-1", "1s", "nan", "inf")),
        ("max_line_bytes", "8191"),
        ("max_head_bytes", "8191"),
        *(("shutdown_timeout", text) for text in ("-0.1", "nan", "inf")),
        *(("client_timeout", text) for text in ("0", "-1", "nan", "inf")),
        *(("rate_limit", text) for text in ("-1", "0.0001", "100001", "nan", "inf")),
        *(("rate_burst", text) for text in ("-1", "1000001", "1.5")),
        *(("access_log", text) for text in ("2", "maybe", "tru")),
        *(("root_token", text) for text in ("a b", "a\tb", "ключ", "a\x7f", "x" * 251)),
        *((name, "\udcff") for name in NAMES if name not in PATHS),
    ],
)
def test_an_invalid_value_is_refused_with_the_name_of_the_setting(name: str, text: str) -> None:
    with pytest.raises(StartupError, match=rf"^setting {name} .* \({variable(name)}\)$"):
        load(environment={variable(name): text})


def test_settings_cannot_be_changed() -> None:
    loaded = load(environment={})
    for name in NAMES:
        with pytest.raises(FrozenInstanceError):
            setattr(loaded, name, getattr(loaded, name))
