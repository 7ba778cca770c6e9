"""Fixtures of the unit tests: a real Postgres, the judge of containment. Where it cannot start, tests fail."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from tests.unit.postgres import Postgres

# A loaded machine must not change a verdict.
settings.register_profile("unit", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres of this test process, from the `pgserver` wheel; run as root it runs under a user of its own."""
    # Not below pytest's own temporary directory: that user has to reach it, and its socket needs a short path.
    with tempfile.TemporaryDirectory(prefix="scc-postgres-") as runtime, pytest.MonkeyPatch.context() as patch:
        # Read when it is imported.
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        from pgserver.postgres_server import get_server

        data = tempfile.mkdtemp(prefix="scc-postgres-data-")
        # Two processes at once would both make the user.
        with Path(tempfile.gettempdir(), "scc-postgres.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server = get_server(data, cleanup_mode="delete")
        try:
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                yield Postgres(connection)
        finally:
            server.cleanup()
