"""A short soak: with every kind of fault it finds nothing wrong, and it finds what is planted in its store."""

import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from scripts.lib.program import ROOT
from service.process.embedded_redis import socket_path
from tests.support.server import PATIENCE, clean_environment, until

FAULTS = (
    "worker killed", "Redis killed", "Redis frozen", "Redis connections cut", "scripts flushed", "requests abandoned",
)  # fmt: skip
OPERATIONS = ("create", "copy", "PUT", "PATCH", "GET", "DELETE", "list", "list of users", "shared PATCH", "shared count")
SEED = 12

#: Changes one value of the first session that has it.
WRONG_VALUE = """
for _, id in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
  local key = ARGV[1] .. "session:" .. id
  local configs, changed = string.gsub(redis.call("HGET", key, "configs"), '"agent":"bot1"', '"agent":"bot4"', 1)
  if changed == 1 then
    redis.call("HSET", key, "configs", configs)
    return
  end
end
"""
PREFIX = "scc:{default.0}:"


def start_soak(output: Path, seconds: int) -> "subprocess.Popen[bytes]":
    """Start a soak that prints into `output`."""
    command = [sys.executable, "-m", "tests.soak", "--seconds", str(seconds), "--seed", str(SEED)]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=file, stderr=subprocess.STDOUT)


def test_a_short_soak_with_every_fault_finds_nothing_wrong(tmp_path: Path) -> None:
    output = tmp_path / "output"
    status = start_soak(output, 10).wait(4 * PATIENCE)
    printed = output.read_text(encoding="utf-8")
    assert status == 0, printed
    assert "all lists, users and documents match the model; check is clean" in printed
    # Every fault and operation happened.
    assert [name for name in (*FAULTS, *OPERATIONS) if not re.search(rf"\b{name} [1-9]", printed)] == []
    assert re.search(r"uncertain writes +[1-9]", printed)


def change_a_value(redis: Redis) -> None:
    redis.eval(WRONG_VALUE, 1, f"{PREFIX}sessions", PREFIX)


def leave_a_member(redis: Redis) -> None:
    redis.sadd(f'{PREFIX}index:0:agent="bot1"', 4000)


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (change_a_value, r"session [0-9a-f-]{36}\n(?s:.*)the last requests to it:\n  [0-9:]{8} "),
        (leave_a_member, "check is not clean"),
    ],
)
def test_a_soak_finds_what_is_planted_in_its_store(tmp_path: Path, plant: Callable[[Redis], None], message: str) -> None:
    output = tmp_path / "output"
    process = start_soak(output, 3)
    until(lambda: "data directory" in output.read_text(encoding="utf-8"), "the first line of a soak")
    data = Path(output.read_text(encoding="utf-8").splitlines()[0].partition("data directory ")[2])
    # More than once: the session may be deleted or replaced before anything reads it.
    while process.poll() is None:
        with suppress(RedisError), Redis(unix_socket_path=str(socket_path(data)), socket_timeout=PATIENCE) as redis:
            plant(redis)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
    printed = output.read_text(encoding="utf-8")
    assert process.returncode == 1, printed
    assert re.search(rf"WRONG, with --seed {SEED}: ", printed), printed
    assert re.search(message, printed), printed
