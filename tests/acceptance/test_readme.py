"""The documents: examples print what the document says, tables are complete, links and file names have targets."""

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

ROOT = Path(__file__).parents[2]
#: For users, operators, developers; in this order, because later examples use what earlier ones have created.
DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md", "service/OPERATIONS.md", "service/README.md", "service/CHANGELOG.md", "scripts/README.md",
        "tests/README.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md",
    )
]  # fmt: skip
FOLDERS = ("service", "scripts", "tests", ".github")
README, OPERATIONS = (path.read_text(encoding="utf-8") for path in DOCUMENTS[:2])
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
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
    """PATH without redis-cli and valkey-cli: symbolic links to the other programs replace a directory with one of them."""
    places: list[str] = []
    for place in map(Path, os.get_exec_path()):
        if any((place / name).exists() for name in CLI):
            substitute = directory / str(len(places))
            substitute.mkdir(parents=True)
            for program in place.iterdir():
                if program.name not in CLI:
                    (substitute / program.name).symlink_to(program)
            place = substitute
        places.append(str(place))
    return os.pathsep.join(places)


@pytest.mark.parametrize("has_cli", [True, False], ids=["path as it is", "no redis-cli on path"])
def test_every_example_prints_the_output_below_it(serving: Serving, tmp_path: Path, has_cli: bool) -> None:
    examples = EXAMPLE.findall(README + OPERATIONS)
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
        completed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
        assert completed.returncode == 0, f"{code}\n{completed.stderr}"
        assert printed, f"the document shows no output for:\n{code}"
        assert pattern(printed).fullmatch(completed.stdout.strip()), f"{code}\nprinted\n{completed.stdout}\nnot\n{printed}"


@pytest.mark.parametrize("setting", fields(Settings), ids=lambda setting: setting.name)
def test_the_settings_table_has_every_setting_with_its_default(setting: object) -> None:
    by_name = {item.name: item for item in fields(Settings)}
    item = by_name[str(getattr(setting, "name", ""))]
    (row,) = re.findall(rf"^\|.*`{variable(item.name)}`.*$", OPERATIONS, re.MULTILINE)
    if item.name not in ("root_token", "key_secret"):
        assert f"`{flag(item.name)}`" in row
    if item.default not in (MISSING, ""):
        default = str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
        assert f"| `{default}` |" in row


def test_the_table_of_reasons_has_every_reason_by_status() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (`[a-z_]+`(?:, `[a-z_]+`)*) \|$", OPERATIONS, re.MULTILINE)
    assert {int(status): set(re.findall(r"\w+", words)) for status, words in rows} == {
        status: set(words) for status, words in reasons().items()
    }


def test_every_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    run_time, extras = project.split("[project.optional-dependencies]")
    reasons_of = README[README.index("## Dependencies") :]
    assert "aiohttp" in names_in(run_time)
    assert [name for name in names_in(run_time) if not re.search(rf"\b{name}\b", reasons_of)] == []
    assert "pytest" in names_in(extras)
    assert [name for name in names_in(extras) if not re.search(rf"\b{name}\b", CONTRIBUTING)] == []


def names_in(project: str) -> list[str]:
    """The packages that a part of pyproject.toml requires."""
    return re.findall(r'^    "([a-z0-9-]+)(?:\[.*?\])?>=', project, re.MULTILINE)


def anchors(document: str) -> set[str]:
    """The anchors of a document (`#…`), which GitHub derives from its headings."""
    headings = re.findall(r"^#+ (.*)$", document, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", path.read_text(encoding="utf-8"))
    for target, anchor in links:
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), (target, anchor)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_repository_that_a_document_names_exists(path: Path) -> None:
    files = [str(file.relative_to(ROOT)) for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")]
    files += [file.name for file in ROOT.iterdir()]
    names = re.findall(r"`(?:\./)?([\w./-]+\.(?:py|lua|sh|md|toml))`", path.read_text(encoding="utf-8"))
    missing = [name for name in names if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    assert missing == []
