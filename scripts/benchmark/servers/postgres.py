"""A Postgres server, Acontext's table and indexes in it, and the HTTP server over it (`postgres_api`)."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from scripts.benchmark import tools
from scripts.lib.program import Program

if TYPE_CHECKING:
    import asyncpg

USER = "bench"
PROJECT = UUID("5b1d8a4e-0000-4000-8000-000000000001")

SCHEMA = """
CREATE TABLE sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id uuid NOT NULL,
    user_id uuid,
    disable_task_tracking boolean NOT NULL DEFAULT false,
    configs jsonb,
    created_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamptz NOT NULL DEFAULT CURRENT_TIMESTAMP
)"""
INDEXES = (
    "CREATE INDEX idx_sessions_project_id ON sessions (project_id)",
    "CREATE INDEX idx_sessions_user_id ON sessions (user_id)",
    "CREATE INDEX idx_sessions_configs ON sessions USING gin (configs)",
)
#: Acontext lacks this index; a filter with many matches would profit from it. Only the row `listing/ordered` has it.
ORDER_INDEX = "CREATE INDEX idx_sessions_order ON sessions (project_id, created_at, id)"

_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "work_mem": "64MB",
    "maintenance_work_mem": "512MB",
    "max_wal_size": "4GB",
    "random_page_cost": "1.1",
    # A crash may lose the last acknowledged writes, less than a second of them, as with Redis's `appendfsync everysec`.
    "synchronous_commit": "off",
    # Compiling costs more than it saves on pages of 20 rows.
    "jit": "off",
}


class Postgres(Program):
    """A Postgres server on a Unix socket in `directory`."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        self.directory = str(home)
        # Postgres refuses to run as root; the Debian package creates a user for it.
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(home, user.pw_uid, user.pw_gid)
            identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = str(home / "data")
        initdb = [tools.path("initdb"), "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=home, **identity)
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [tools.path("postgres"), "-D", data, "-k", self.directory, *settings]
        super().__init__(home, command, tied=False, cwd=home, **identity)
        self.printed("(ready to accept connections)")

    def stop(self) -> None:
        """Stop without waiting for clients, and without a checkpoint."""
        if self.process.poll() is None:
            self.process.send_signal(3)  # SIGQUIT: an immediate shutdown
            self.process.wait()

    async def connect(self, database: str) -> "asyncpg.Connection":
        """Connect to one database."""
        import asyncpg  # of the extra `bench`; the unit tests import this module without it

        return await asyncpg.connect(host=self.directory, user=USER, database=database)

    async def execute(self, database: str, *statements: str) -> None:
        """Run statements, each in a separate transaction."""
        connection = await self.connect(database)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()
