"""`verify`: check a backup without restoring it."""

import sys
from pathlib import Path

import click

from service.commands._parameters import DIRECTORY, takes_settings
from service.commands.backup import amount, bytes_bar
from service.process import backup, embedded_redis
from service.settings import Settings


@click.command()
@click.argument("source", type=DIRECTORY, metavar="DIR", help="the backup")
@takes_settings(("redis_server",))
def command(settings: Settings, source: str) -> int:
    """Compare every file with its digest, and check the append-only file with Redis's own tools; the exit status is 0.

    Raises:
        StartupError: the backup is damaged or incomplete, or no server can read it.
    """
    directory = Path(source).absolute()
    server = embedded_redis.choose_server(directory / backup.DATA, settings.redis_server)
    with bytes_bar("verify", sum(file.size for file in backup.read(directory))) as progress:
        files = backup.verify(directory, server, progress)
    sys.stdout.write(f"{amount(files)} in backup {source} are undamaged\n")
    return 0
