"""Which Python the scripts use, and when they recreate their virtual environment: scripts/lib/venv.sh on fake Pythons."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "scripts" / "lib" / "venv.sh"

#: A Python as venv.sh sees it: prints the padded version and its path.
FAKE = "#!/bin/sh\necho {padded} $0\n"
SHIM = "#!/bin/sh\necho 'pyenv: python3: command not found' >&2\nexit 127\n"
NO_VENV = "#!/bin/sh\necho 'ModuleNotFoundError: ensurepip' >&2\nexit 1\n"


def program(path: Path, text: str) -> Path:
    """A script at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def python(path: Path, version: str) -> Path:
    """A Python of that version at `path`."""
    major, minor, patch = map(int, version.split("."))
    return program(path, FAKE.format(padded=f"{major:02}{minor:02}{patch:03}"))


def shell(command: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command after venv.sh, with nothing on PATH but the system's tools and `home`/bin."""
    tools = home / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("dirname", "sort", "tail", "cat", "cksum", "cp", "mkdir", "touch"):
        if not (tools / name).exists():
            (tools / name).symlink_to(f"/usr/bin/{name}")
    environment = {"HOME": str(home), "PATH": f"{home}/bin:{tools}"} | variables
    return subprocess.run(
        ["/bin/bash", "-c", f"set -euo pipefail\n. {LIBRARY}\n{command}"],
        env=environment, capture_output=True, text=True, check=False, cwd=home,
    )  # fmt: skip


def chosen_python(home: Path, **variables: str) -> str:
    """The chosen Python, relative to `home`."""
    run = shell("find_python", home, **variables)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip().removeprefix(f"{home}/")


def test_the_newest_python_is_used_wherever_it_is(tmp_path: Path) -> None:
    python(tmp_path / "bin" / "python3", "3.11.2")
    assert chosen_python(tmp_path) == "bin/python3"
    python(tmp_path / "bin" / "python3.12", "3.12.1")
    assert chosen_python(tmp_path) == "bin/python3.12"
    python(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python3", "3.13.0")
    python(tmp_path / ".pyenv" / "versions" / "3.9.18" / "bin" / "python3", "3.9.18")
    assert chosen_python(tmp_path) == ".pyenv/versions/3.13.0/bin/python3"
    python(tmp_path / "pyenv" / "versions" / "3.12.10" / "bin" / "python3", "3.12.10")
    assert chosen_python(tmp_path, PYENV_ROOT=str(tmp_path / "pyenv")) == "pyenv/versions/3.12.10/bin/python3"


@pytest.mark.parametrize("text", [SHIM, NO_VENV, "#!/nowhere\n", ""], ids=["shim", "no ensurepip", "no interpreter", "empty"])
def test_an_unusable_python_is_skipped(tmp_path: Path, text: str) -> None:
    program(tmp_path / "bin" / "python3.13", text)
    python(tmp_path / "bin" / "python3", "3.11.2")
    assert chosen_python(tmp_path) == "bin/python3"
    program(tmp_path / "bin" / "python3", text)
    run = shell("find_python", tmp_path)
    assert run.returncode == 1
    assert "apt-get install python3-venv" in run.stderr
    assert run.stderr.count("\n") == 1


def test_python_names_the_one_to_use(tmp_path: Path) -> None:
    python(tmp_path / "bin" / "python3.13", "3.13.0")
    python(tmp_path / "bin" / "mine", "3.15.0")
    assert chosen_python(tmp_path, PYTHON="mine") == "bin/mine"
    run = shell("find_python", tmp_path, PYTHON="nowhere/python3")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("PYTHON=nowhere/python3 is not a Python 3.11 or newer that can create a virtual environment")


@pytest.mark.parametrize(
    ("fact", "supported"),
    [
        ("sys.version_info = Info(3, 14, 0, 'final', 0)", True),
        ("sys.version_info = Info(3, 10, 9, 'final', 0)", False),
        ("sys.version_info = Info(3, 14, 0, 'candidate', 1)", False),
        ("sys.version_info = Info(3, 15, 0, 'final', 0)", False),
        ("sys.abiflags = 't'", False),
        ("sys.implementation.name = 'pypy'", False),
    ],
)
def test_only_released_pythons_with_wheels_are_used_by_default(tmp_path: Path, fact: str, supported: bool) -> None:
    start = "import collections, sys; Info = collections.namedtuple('Info', 'major minor micro releaselevel serial')"
    program(
        tmp_path / "bin" / "python3",
        f"#!/bin/sh\nexec {sys.executable} -I -c \"{start}; sys.version_info = Info(3, 13, 0, 'final', 0); {fact}\n$3\"\n",
    )
    assert bool(shell('probe python3 "$supported"', tmp_path).stdout) is supported


def test_an_environment_is_created_again_only_if_its_python_has_changed(tmp_path: Path) -> None:
    """Environments are faked, too: their Python's identity is a file, and installations are recorded."""
    fake = "\n".join((
        f"root={tmp_path} venv={tmp_path}/.venv",
        "touch $root/pyproject.toml",
        'identity() { cat "$1" 2>/dev/null || true; }',
        f"find_python() {{ echo {tmp_path}/maker; }}",
        "ensure_venv test",
    ))  # fmt: skip
    program(tmp_path / "maker", "#!/bin/bash\necho make >>$0.log; mkdir -p ${5}/bin; cp $0.identity ${5}/bin/python\n")
    log, identity = tmp_path / "maker.log", tmp_path / "maker.identity"

    def made(**variables: str) -> int:
        shell(fake, tmp_path, **variables)
        return len(log.read_text(encoding="utf-8").splitlines())

    stamp = tmp_path / ".venv" / ".installed"
    identity.write_text("3.11 /usr\n", encoding="utf-8")
    assert made() == 1

    def stamped() -> None:
        # A finished installation leaves this file; the fake cannot install.
        sums = shell(f"cksum <{tmp_path}/pyproject.toml", tmp_path).stdout.strip()
        python = tmp_path / ".venv" / "bin" / "python"
        made_by = python.read_text(encoding="utf-8").strip()
        stamp.write_text(f"{made_by} {tmp_path} {sums}: base test \n", encoding="utf-8")

    assert made() == 2  # its installation was not finished
    stamped()
    assert made() == 2
    assert made(PYTHON=str(identity)) == 2
    (tmp_path / ".venv" / "bin" / "python").write_text("3.12 /usr\n", encoding="utf-8")  # the system's Python was upgraded
    assert made() == 3
    stamped()
    identity.write_text("3.13 /opt\n", encoding="utf-8")
    assert made() == 3  # a newer Python alone is no reason
    assert made(PYTHON=str(identity)) == 4
    stamped()
    (tmp_path / ".venv" / "bin" / "python").unlink()  # its Python was removed
    assert made() == 5
