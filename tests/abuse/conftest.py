"""Attacks on the shared server, each in its own project; they must not make the server log anything."""

from collections.abc import Iterator

import pytest

from tests.support.server import Server, logging_nothing


@pytest.fixture(autouse=True)
def _quiet(server: Server) -> Iterator[None]:
    """No traceback, whatever the attack."""
    with logging_nothing(server):
        yield
