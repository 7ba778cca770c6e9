"""Each test has its own project on the shared server, which must not log anything."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.http import Api, Operator
from tests.support.server import Server, Serving, logging_nothing


@pytest.fixture
def other(operator: Operator) -> Iterator[Api]:
    """A second new project."""
    other = operator.new_project()
    yield other
    other.close()


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Serving]]:
    """Starts servers with given flags and the tests' root token. They stop with the module and must have logged nothing."""
    started: list[Serving] = []

    def start(*flags: str) -> Serving:
        started.append(Serving(tmp_path_factory.mktemp("server") / "data", *flags, SCC_ROOT_TOKEN="root-of-the-tests"))
        return started[-1].wait_ready()

    yield start
    for serving in started:
        assert (serving.stop(), serving.errors) == (0, "")


@pytest.fixture(autouse=True)
def _quiet(server: Server) -> Iterator[None]:
    """Nothing that a client sends makes the server log anything: no traceback, no key, no configs."""
    with logging_nothing(server):
        yield
