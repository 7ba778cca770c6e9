"""Each test has a project of its own on the shared server, and may not make the server log anything."""

from collections.abc import Iterator

import pytest

from tests.api import Api, Operator
from tests.serving import Server


@pytest.fixture
def other(operator: Operator) -> Iterator[Api]:
    """Another new project."""
    other = operator.new_project()
    yield other
    other.close()


@pytest.fixture(autouse=True)
def _quiet(server: Server) -> Iterator[None]:
    """Nothing that a client sends makes the server log: no traceback, no key, no configs."""
    log = server.data_dir.with_name(f"{server.data_dir.name}.err")
    before = log.stat().st_size
    yield
    with log.open("rb") as file:
        file.seek(before)
        assert file.read() == b""
