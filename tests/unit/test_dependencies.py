"""The bounds of the dependencies, and the lock files that CI and the image install from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts.lib.lower_bounds import constraints

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(PYPROJECT)["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = {"requirements.txt": PROJECT["dependencies"], "requirements-test.txt": [*PROJECT["dependencies"], *EXTRAS["test"]]}

_PINNED = re.compile(r"(\S.*)(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n")


def text_of(lock: str) -> str:
    return (ROOT / "scripts" / "lib" / lock).read_text(encoding="utf-8")


def locked(lock: str) -> list[Requirement]:
    """What a lock file pins; every line of it is a comment, or belongs to a pinned version with hashes."""
    text = re.sub(r"^ *#.*\n", "", text_of(lock), flags=re.MULTILINE)
    entries = list(_PINNED.finditer(text))
    assert "".join(entry[0] for entry in entries) == text
    return [Requirement(entry[1]) for entry in entries]


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)])
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement: str) -> None:
    assert sorted(re.findall(r"[<>]=?", str(Requirement(requirement).specifier))) == ["<", ">="]


def test_ci_installs_the_lower_bounds() -> None:
    pinned = [Requirement(line) for line in constraints(PYPROJECT)]
    assert [one.name for one in pinned] == [Requirement(one).name for one in LOCKS["requirements-test.txt"]]
    for one, requirement in zip(pinned, map(Requirement, LOCKS["requirements-test.txt"]), strict=True):
        ((operator, version),) = ((item.operator, item.version) for item in one.specifier)
        assert operator == "=="
        assert f">={version}" in str(requirement.specifier).split(",")
        assert one.marker == requirement.marker


@pytest.mark.parametrize("requirement", ["redis", "redis>=8", "redis<9", "redis==8.1"])
def test_a_dependency_without_both_bounds_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match=f"^{requirement} needs a lower and an upper bound"):
        list(constraints(f'[project]\ndependencies = ["{requirement}"]\n[project.optional-dependencies]\ntest = []\n'))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_pins_every_dependency_within_its_bounds(lock: str) -> None:
    pinned = {one.name: one for one in locked(lock)}
    for requirement in map(Requirement, LOCKS[lock]):
        ((operator, version),) = ((item.operator, item.version) for item in pinned[requirement.name].specifier)
        assert operator == "=="
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: run scripts/lock"


def test_the_tests_use_the_versions_that_users_get() -> None:
    versions = {(one.name, str(one.specifier)) for one in locked("requirements.txt")}
    assert versions <= {(one.name, str(one.specifier)) for one in locked("requirements-test.txt")}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_contains_no_addresses_or_paths(lock: str) -> None:
    assert re.findall(r"(?:https?|file)://\S*|--\S*(?:index|links)\S*|(?<![\w.])/\w+\S*", text_of(lock)) == []
