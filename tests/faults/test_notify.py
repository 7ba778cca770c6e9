"""A server under a service manager like systemd says when it is ready, reloads, and stops."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import PATIENCE, Start, until


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(PATIENCE)
        yield receiver


def test_a_server_tells_its_service_manager_what_it_does(start: Start, manager: socket.socket, tmp_path: Path) -> None:
    def message() -> list[str]:
        return manager.recv(4096).decode().split("\n")

    file = tmp_path / "scc.toml"
    file.write_text("max_keys = 100\n", encoding="utf-8")
    serving = start("--config", str(file), NOTIFY_SOCKET=str(tmp_path / "notify"))
    assert message() == ["READY=1"]
    for text, line in (("max_keys = 50\n", "every worker has the new settings"), ("nope = 1\n", "nope in ")):
        file.write_text(text, encoding="utf-8")
        serving.process.send_signal(signal.SIGHUP)
        reloading, since = message()
        assert (reloading, since.partition("=")[0]) == ("RELOADING=1", "MONOTONIC_USEC")
        assert message() == ["READY=1"]
        assert line in serving.errors
    (redis,) = serving.redis_processes()
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{redis}/environ").read_bytes()
    os.kill(serving.workers()[0], signal.SIGKILL)
    until(lambda: len(serving.workers()) == 2, "a new worker")
    assert serving.stop() == 0
    # Nothing about the worker.
    assert message() == ["STOPPING=1"]
