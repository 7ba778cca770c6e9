"""The data directory: one server at a time, the secrets made on first use, and the way to a server that runs on it.

    lock         held (flock) while a server, or the Redis it left behind, lives
    root-token   the key of project `default` is sk-ac-<root-token>
    key-secret   what keys are hashed with

The embedded Redis keeps its socket, its log and its append-only file there too, see `service.process.embedded_redis`.
"""

import fcntl
import os
import secrets
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from service.errors import StartupError
from service.process import aof_format, embedded_redis
from service.settings import Settings, variable

LOCK, ROOT_TOKEN, KEY_SECRET = "lock", "root-token", "key-secret"

#: Seconds. After a kill -9 of the supervisor its Redis still writes its file to the end, and holds the lock meanwhile.
LOCK_PATIENCE = 2.0

_SECRET_BYTES = 32


def create(path: Path) -> Path:
    """Make the data directory, open to its owner only, and return its absolute path.

    One that is there already keeps its mode: it may be a mounted volume. What is put into it is closed to others anyway.

    Raises:
        StartupError: it cannot be made, or is not a directory that can be written.
    """
    directory = path.absolute()
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StartupError(f"data directory {directory} cannot be made: {error.strerror}") from None
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise StartupError(f"data directory {directory} cannot be read and written by this user")
    require_private(directory)
    return directory


def require_private(directory: Path) -> None:
    """Make sure that nobody else can change what the server reads from its data directory.

    Owned by root is as good as owned by this user: root may write everywhere. A volume that Kubernetes gives to a group
    (`fsGroup`: owned by root, with the set-group-ID bit, and writable with all its files) may be written by that group.

    Raises:
        StartupError: the directory, or a file of ours in it, has another owner, or others may write to it.
    """
    volume = directory.stat()
    trusted_group = volume.st_gid if volume.st_uid == 0 and volume.st_mode & stat.S_ISGID else None
    own = [directory / name for name in (LOCK, ROOT_TOKEN, KEY_SECRET, embedded_redis.LOG)]
    for path in filter(Path.exists, [directory, *own, *aof_format.files(directory)]):
        status = path.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise StartupError(
                f"{path} belongs to user {status.st_uid}, and this process runs as user {os.geteuid()}: "
                "run it as the owner, or change the owner with chown"
            )
        others = stat.S_IWOTH if status.st_gid == trusted_group else stat.S_IWOTH | stat.S_IWGRP
        if status.st_mode & others:
            raise StartupError(f"{path} can be written by other users; close it with `chmod go-w {path}`")


def lock(directory: Path, patience: float = LOCK_PATIENCE) -> BinaryIO:
    """Take the directory for this server; `patience` is in seconds.

    The lock belongs to the open file: it lasts until the file returned and all copies that children inherited are closed.

    Raises:
        StartupError: another server has it.
    """
    file = os.fdopen(os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    deadline = time.monotonic() + patience
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
    """`settings` with root token and key secret; those not set come from the data directory, made on first use.

    Raises:
        StartupError: the data directory cannot be used, or a file in it is empty.
    """
    if settings.root_token and settings.key_secret:
        return settings
    directory = create(settings.data_dir)
    return replace(
        settings,
        root_token=settings.root_token or _kept(directory / ROOT_TOKEN),
        key_secret=settings.key_secret or _kept(directory / KEY_SECRET),
    )


def running(settings: Settings, *, needs_key_secret: bool = False) -> Settings:
    """`settings` with the Redis of the running server, for commands beside it.

    The key secret comes from the data directory where it is not set. It stays empty where there is none, unless
    `needs_key_secret`: hashing keys with an empty secret would make keys that no server knows.

    Raises:
        StartupError: no server runs on the data directory, or the key secret is needed and unknown.
    """
    directory = settings.data_dir.absolute()
    if not settings.redis_url and embedded_redis.ping(directory) is None:
        raise StartupError(f"no server runs on data directory {directory}; start one there, or name its Redis with --redis-url")
    secret = settings.key_secret or _read(directory / KEY_SECRET) or ""
    if needs_key_secret and not secret:
        raise StartupError(
            f"the key secret of the server is not known; set {variable(KEY_SECRET.replace('-', '_'))}, or name its --data-dir"
        )
    return replace(settings, redis_url=settings.redis_url or embedded_redis.url(directory), key_secret=secret)


def _kept(path: Path) -> str:
    """The secret in the file `path`, made if there is none."""
    guard = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Servers of a Redis that is not embedded may share the directory: the first makes the secret, the others read it.
        fcntl.flock(guard, fcntl.LOCK_EX)
        known = _read(path)
        return _make(path, guard) if known is None else known
    except OSError as error:
        raise StartupError(f"{path} cannot be made: {error.strerror}") from None
    finally:
        os.close(guard)


def _make(path: Path, directory: int) -> str:
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    draft = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(secret + "\n")
        file.flush()
        os.fsync(file.fileno())
    # All keys hang on the secret: it is on the disk, whole and under its name, before anything uses it.
    draft.replace(path)
    os.fsync(directory)
    return secret


def _read(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path} cannot be read: {error}") from None
    if not text:
        raise StartupError(f"{path} is empty; put the secret back, or remove the file to have a new one made")
    return text
