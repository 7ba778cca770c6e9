"""The data directory: locked by one server at a time, with the generated secrets and the files of the embedded Redis.

    lock         locked (flock) while a server is running, or an embedded Redis whose server was killed
    root-token   the key of project `default` is sk-ac-<root-token>
    key-secret   the secret for hashing keys

The embedded Redis has its socket, log and append-only file there too, see `service.process.embedded_redis`.
"""

import fcntl
import os
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from service.errors import StartupError
from service.process import aof_format, embedded_redis
from service.settings import Settings, variable

LOCK, ROOT_TOKEN, KEY_SECRET = "lock", "root-token", "key-secret"

#: Seconds. After a kill -9 of the supervisor, its Redis finishes writing its file, and holds the lock until then.
LOCK_TIMEOUT = 2.0

_SECRET_BYTES = 32


def create(path: Path) -> Path:
    """Create the data directory, with mode 0700, and return its absolute path.

    An existing directory keeps its mode: it may be a mounted volume. The files in it are private in any case.

    Raises:
        StartupError: it cannot be created or written, or others can write to it.
    """
    directory = path.absolute()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot create data directory {directory}: {error.strerror}") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise StartupError(f"this user cannot read and write data directory {directory}")
    require_private(directory)
    return directory


def require_private(directory: Path) -> None:
    """Check that no other user can change what the server reads from its data directory.

    The owner may be this user or root, who can write everywhere. With Kubernetes' `fsGroup`, a volume is owned by root, has the
    set-group-ID bit, and it and its files are writable by the group; that group may write.

    Raises:
        StartupError: the directory, or a file of the service in it, has another owner, or others may write to it.
    """
    volume = directory.stat()
    trusted_group = volume.st_gid if volume.st_uid == 0 and volume.st_mode & stat.S_ISGID else None
    files = [directory / name for name in (LOCK, ROOT_TOKEN, KEY_SECRET, embedded_redis.LOG)]
    for path in filter(Path.exists, [directory, *files, *aof_format.files(directory)]):
        status = path.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise StartupError(
                f"{path} belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}: "
                "run it as the owner, or change the owner with chown"
            )
        others = stat.S_IWOTH if status.st_gid == trusted_group else stat.S_IWOTH | stat.S_IWGRP
        if status.st_mode & others:
            raise StartupError(f"other users can write to {path}; forbid that with `chmod go-w {path}`")


def lock(directory: Path, timeout: float = LOCK_TIMEOUT) -> BinaryIO:
    """Lock the directory for this server, waiting at most `timeout` seconds; returns the lock file.

    The lock belongs to the open file: it lasts until this process and all children that inherited the file have closed it.

    Raises:
        StartupError: another server has the lock.
    """
    file = os.fdopen(os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            file.close()
            raise StartupError(f"data directory {directory} is in use by another server") from None
        return file


def with_secrets(settings: Settings) -> Settings:
    """`settings` with root token and key secret; those not set come from the data directory, generated on first use.

    Raises:
        StartupError: the data directory cannot be used, or a file in it is empty.
    """
    if settings.root_token and settings.key_secret:
        return settings
    directory = create(settings.data_dir)
    return replace(
        settings,
        root_token=settings.root_token or _load_or_create(directory / ROOT_TOKEN),
        key_secret=settings.key_secret or _load_or_create(directory / KEY_SECRET),
    )


def generated_secrets(settings: Settings) -> dict[str, str]:
    """By setting: the files of the data directory whose secrets are in force where `settings` have none."""
    files = {"root_token": settings.data_dir / ROOT_TOKEN, "key_secret": settings.data_dir / KEY_SECRET}
    return {name: str(file) for name, file in files.items() if not getattr(settings, name) and file.exists()}


def with_running_redis(settings: Settings, *, needs_key_secret: bool = False) -> Settings:
    """`settings` with the URL of the running server's Redis, for commands that connect to it.

    An unset key secret comes from the data directory. Without one there it stays empty, unless `needs_key_secret`: no server
    would accept keys that were hashed with an empty secret.

    Raises:
        StartupError: no server is running on the data directory, or the key secret is needed and unknown.
    """
    directory = settings.data_dir.absolute()
    if not settings.redis_url and embedded_redis.ping(directory) is None:
        raise StartupError(f"no server is running on data directory {directory}; start one, or pass --data-dir or --redis-url")
    secret = settings.key_secret or _read(directory / KEY_SECRET) or ""
    if needs_key_secret and not secret:
        raise StartupError(
            f"the server's key secret is unknown; set {variable(KEY_SECRET.replace('-', '_'))}, or pass the server's --data-dir"
        )
    return replace(settings, redis_url=settings.redis_url or embedded_redis.url(directory), key_secret=secret)


def _load_or_create(path: Path) -> str:
    """The secret in the file `path`, generated if the file does not exist."""
    guard = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Servers with an external Redis may share the directory: the first generates the secret, the others read it.
        fcntl.flock(guard, fcntl.LOCK_EX)
        secret = _read(path)
        return _create(path, guard) if secret is None else secret
    except OSError as error:
        raise StartupError(f"cannot create {path}: {error.strerror}") from None
    finally:
        os.close(guard)


def _create(path: Path, directory: int) -> str:
    import secrets  # It takes long, and most starts find their secrets.

    secret = secrets.token_urlsafe(_SECRET_BYTES)
    draft = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    # Every stored key depends on the secret: it must be complete on the disk before anything uses it.
    draft.replace(path)
    os.fsync(directory)
    return secret


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"cannot read {path}: {error}") from None
    if not text:
        raise StartupError(f"{path} is empty; restore the secret, or remove the file to generate a new one")
    return text
