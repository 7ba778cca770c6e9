"""Fixtures of the unit tests: a real Postgres, the reference for containment. If it cannot start, tests fail."""

from collections.abc import Iterator

import psycopg
import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import Postgres, postgres_server
from tests.support.used_servers import USED

# A busy machine must not change a result.
settings.register_profile("unit", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unit")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A Postgres of this test process."""
    with postgres_server() as uri, psycopg.connect(uri, autocommit=True) as connection:
        USED.add(f"Postgres {connection.info.parameter_status('server_version')}")
        yield Postgres(connection)
