"""Attacks run against the shared server, each in a project of its own; they may not make the server log anything."""

from collections.abc import Iterator

import pytest

from tests.support.server import Server, logging_nothing


@pytest.fixture(autouse=True)
def _quiet(server: Server) -> Iterator[None]:
    """No traceback, whatever the attack."""
    with logging_nothing(server):
        yield
