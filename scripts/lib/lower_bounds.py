"""Print `name==version` for the lower bound of every dependency and test dependency in pyproject.toml: constraints for pip.

It uses only the standard library, because CI runs it before anything is installed.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?>=(?P<lower>[^,;]+),<[^;]+(?P<marker>;.*)?")


def constraints(pyproject: str) -> Iterator[str]:
    """One constraint for each requirement, with its environment marker.

    Raises:
        ValueError: a requirement has no lower or no upper bound.
    """
    project = tomllib.loads(pyproject)["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement} needs a lower and an upper bound: name>=1.0,<2")
        yield f"{match['name']}=={match['lower']}{match['marker'] or ''}"


if __name__ == "__main__":
    print("\n".join(constraints(PYPROJECT.read_text(encoding="utf-8"))))  # noqa: T201 - its output
