"""A data directory that has become read-only: reads succeed, and the shutdown is clean."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.process.embedded_redis import EmbeddedRedis
from tests.acceptance.test_processes import configs_of, create, key_of
from tests.faults.test_disk_full import limit_files, redis_of
from tests.faults.test_truncated_file import append_only_file
from tests.support.server import Serving, Start, request, until


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Make the directory and those below it read-only.

    By their mode, or for root, whom modes do not restrict, by the attribute `immutable`.
    """
    directories = [directory, *(path for path in directory.rglob("*") if path.is_dir())]
    by_mode = os.geteuid() != 0
    try:
        for path in directories:
            if by_mode:
                path.chmod(0o500)
            elif subprocess.run(["chattr", "+i", path], check=False, capture_output=True).returncode != 0:
                pytest.skip("root may not make a directory immutable here")
        yield
    finally:
        for path in directories:
            if by_mode:
                path.chmod(0o700)
            else:
                subprocess.run(["chattr", "-i", path], check=False, capture_output=True)


def test_a_server_on_a_read_only_file_system_serves_reads_and_shuts_down_cleanly(start: Start) -> None:
    serving = start()
    key = key_of(serving)
    session = create(serving, key, {"agent": "bot1"})
    with read_only(serving.data_dir):
        limit_files(redis_of(serving), append_only_file(serving.data_dir).stat().st_size)

        def writes_are_refused() -> bool:
            return request("POST", f"{serving.base_url}/session", key, {"configs": {}})[0] == 503

        until(writes_are_refused, "a refused write")
        assert configs_of(serving, key, session) == {"agent": "bot1"}
        assert serving.stop() == 0
    assert "Traceback" not in serving.errors
    assert "cannot remove the socket of the embedded Redis" in serving.errors
    again = start()
    assert configs_of(again, key, session) == {"agent": "bot1"}


def test_a_redis_killed_on_a_read_only_file_system_restarts_when_it_becomes_writable(start: Start) -> None:
    serving = start()
    key = key_of(serving)
    with read_only(serving.data_dir):
        os.kill(redis_of(serving), 9)
        until(lambda: serving.errors.count("the embedded Redis exited") > 1, "failed starts")
    until(lambda: request("GET", f"{serving.base_url}/session", key)[0] == 200, "an answer of the new Redis")
    assert serving.stop() == 0
    assert "Traceback" not in serving.errors


def test_a_socket_that_cannot_be_removed_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    redis = EmbeddedRedis(tmp_path, fsync="no")
    redis.launch()
    redis.wait()
    (tmp_path / "redis.sock").unlink()
    (tmp_path / "redis.sock").mkdir()
    redis.stop()
    assert redis.pid is None
    assert "cannot remove the socket of the embedded Redis" in caplog.text


def test_a_removed_data_directory_does_not_prevent_a_clean_shutdown(start: Start, tmp_path: Path) -> None:
    serving: Serving = start()
    serving.data_dir.rename(tmp_path / "gone")
    os.kill(redis_of(serving), 9)
    until(lambda: "the embedded Redis exited" in serving.errors, "the exit of Redis")
    assert serving.stop() == 0
    assert "Traceback" not in serving.errors
    assert "its log cannot be read" in serving.errors
