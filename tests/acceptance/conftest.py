"""Each test has a project of its own on the shared server."""

from collections.abc import Iterator

import pytest

from tests.api import Api, Operator
from tests.serving import Server


@pytest.fixture(scope="session")
def operator(server: Server) -> Iterator[Operator]:
    """Makes projects and looks into the store."""
    operator = Operator(server)
    yield operator
    operator.close()


@pytest.fixture
def api(operator: Operator) -> Iterator[Api]:
    """A new project."""
    api = operator.new_project()
    yield api
    api.close()
