"""The README's commands, run as they stand there, must print what stands below them; its settings table must be whole."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from service.errors import reasons
from service.settings import Settings, flag, variable
from tests.support.server import PATIENCE, Serving, clean_environment

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(r"^```(sh|python)\n(.*?)^```\n(?:```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
KEY = "sk-ac-readme"
CLI = ("redis-cli", "valkey-cli")


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    running = Serving(tmp_path / "data", "--workers", "1", SCC_ROOT_TOKEN=KEY.removeprefix("sk-ac-"))
    yield running.wait_ready()
    assert running.stop() == 0


def pattern(printed: str) -> re.Pattern[str]:
    """`…` stands for anything that differs from run to run."""
    return re.compile(re.escape(printed.strip()).replace("…", ".*?"), re.DOTALL)


def path_without_cli(directory: Path) -> str:
    """PATH without redis-cli and valkey-cli: links to the other programs stand in for a directory that has one of them."""
    places: list[str] = []
    for place in map(Path, os.get_exec_path()):
        if any((place / name).exists() for name in CLI):
            links = directory / str(len(places))
            links.mkdir(parents=True)
            for program in place.iterdir():
                if program.name not in CLI:
                    (links / program.name).symlink_to(program)
            place = links
        places.append(str(place))
    return os.pathsep.join(places)


@pytest.mark.parametrize("has_cli", [True, False], ids=["path as it is", "no redis-cli on path"])
def test_every_example_prints_what_stands_below_it(serving: Serving, tmp_path: Path, has_cli: bool) -> None:
    examples = EXAMPLE.findall(README)
    assert len(examples) >= 10
    environment = clean_environment(KEY=KEY, SCC_DATA_DIR=str(serving.data_dir), COLUMNS="80")
    path = environment["PATH"] if has_cli else path_without_cli(tmp_path / "path")
    environment["PATH"] = f"{Path(sys.executable).parent}:{path}"
    # What one block sets (URL, SESSION) the later ones use, so each runs after all assignments before it.
    assignments = ""
    for language, code, printed in examples:
        code = code.replace("http://127.0.0.1:8029", serving.origin)
        if language == "sh":
            command = ["bash", "-euo", "pipefail", "-c", assignments + code]
            assignments += "".join(re.findall(r"^[A-Z]+=.*\n", code, re.MULTILINE))
        else:
            command = [sys.executable, "-c", f"KEY = {KEY!r}\n{code}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr}"
        assert printed, f"nothing is said of what this prints:\n{code}"
        assert pattern(printed).fullmatch(done.stdout.strip()), f"{code}\nprinted\n{done.stdout}\nnot\n{printed}"


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_the_settings_table_has_every_setting_with_its_default(setting: object) -> None:
    by_name = {item.name: item for item in fields(Settings)}
    item = by_name[str(getattr(setting, "name", ""))]
    (row,) = re.findall(rf"^\|.*`{variable(item.name)}`.*$", README, re.MULTILINE)
    if item.name not in ("root_token", "key_secret"):
        assert f"`{flag(item.name)}`" in row
    if item.default not in (MISSING, ""):
        shown = str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
        assert f"| `{shown}` |" in row


def test_the_table_of_reasons_has_every_reason_by_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (`[a-z_]+`(?:, `[a-z_]+`)*) \|$", README, re.MULTILINE)
    assert {int(status): set(re.findall(r"\w+", words)) for status, words in rows} == {
        status: set(words) for status, words in reasons().items()
    }


def test_every_dependency_has_its_reason() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    names = re.findall(r'^    "([a-z-]+)(?:\[.*?\])?>=', project, re.MULTILINE)
    assert "aiohttp" in names
    told = README[README.index("## Dependencies") :]
    assert [name for name in names if not re.search(rf"\b{name}\b", told)] == []
