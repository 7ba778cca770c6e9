"""Attacks run against the shared server, each in a project of its own; they may not make the server log anything."""

from collections.abc import Iterator

import pytest

from tests.serving import Server


@pytest.fixture(autouse=True)
def _quiet(server: Server) -> Iterator[None]:
    """No traceback, whatever the attack."""
    log = server.data_dir.with_name(f"{server.data_dir.name}.err")
    before = log.stat().st_size
    yield
    with log.open("rb") as file:
        file.seek(before)
        assert file.read() == b""
