"""Installation by name and from a checkout of any name: the steps of the Dockerfile and of the scripts, in empty environments.

The dependencies come from the environment of the tests, so that only the package itself is installed.
"""

import os
import re
import shlex
import shutil
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import __version__
from tests.support.server import PATIENCE, clean_environment

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
#: Without `"` and `$`, which pip cannot write into the first line of a program (`python -m service` works there).
CHECKOUT = "feature%2Fx %(a)s [b] 'c' 机器[d]"
#: Seconds; the build of a package fetches setuptools.
INSTALLATION = 300.0


def copy_to(directory: Path) -> Path:
    """A copy of what the image and the scripts need."""
    for name in ("service", "scripts"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    return directory


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_to(tmp_path / CHECKOUT)


def environment(**variables: str) -> dict[str, str]:
    paths = os.pathsep.join(site.getsitepackages())
    return clean_environment(PYTHONPATH=paths, PIP_NO_DEPS="1", PYTHON=sys.executable, **variables)


def run(*command: str | Path, cwd: Path) -> str:
    completed = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=INSTALLATION, check=False
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


def test_the_steps_of_the_dockerfile_install_the_program(tmp_path: Path) -> None:
    source, home = copy_to(tmp_path / "src"), tmp_path / "opt"
    for step in re.findall(r"^RUN ((?:python|pip|find) .*)$", DOCKERFILE, re.MULTILINE):
        program, *words = shlex.split(step.replace("/opt/session-config-cache", str(home)))
        interpreter = {"python": [sys.executable], "pip": [sys.executable, "-m", "pip"], "find": ["find"]}[program]
        run(*interpreter, *words, cwd=source)
    assert not (home / "bin" / "pip").exists()
    (entry,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', DOCKERFILE, re.MULTILINE)
    assert entry == "session-configs"
    assert run(home / "bin" / entry, "--version", cwd=tmp_path) == f"session-configs {__version__}\n"
    assert run(home / "bin" / "python", "-m", "service", "--version", cwd=tmp_path) == f"session-configs {__version__}\n"
    listed = run(home / "bin" / entry, "--help", cwd=tmp_path)
    for command in ("serve", "project", "find", "check", "repartition", "health", "redis-cli"):
        assert re.search(rf"^  {command}\s", listed, re.MULTILINE)


@pytest.fixture
def serving(checkout: Path, tmp_path: Path) -> Iterator[Path]:
    """scripts/serve of the checkout, called from a folder with a module `service`; yields the file of its output."""
    caller = tmp_path / "caller"
    caller.mkdir()
    (caller / "service.py").write_text("raise SystemExit(3)", encoding="utf-8")
    output = tmp_path / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [checkout / "scripts" / "serve", "--port", "0", "--workers", "1"],
            cwd=caller,
            env=environment(SCC_DATA_DIR=""),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + INSTALLATION
        while "\nkey: " not in output.read_text(encoding="utf-8"):
            assert process.poll() is None, output.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, output.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield output
    finally:
        process.terminate()
        status = process.wait(PATIENCE)
    assert status == 0, output.read_text(encoding="utf-8")


def test_a_checkout_of_any_name_installs_and_serves_with_its_data_in_the_checkout(checkout: Path, serving: Path) -> None:
    assert "is ready at http://127.0.0.1:" in serving.read_text(encoding="utf-8")
    assert (checkout / ".data" / "key-secret").exists()
    assert not list(checkout.glob("*.egg-info"))
    program = checkout / ".venv" / "bin" / "session-configs"
    assert run(program, "project", "list", cwd=checkout).startswith("default\t")
