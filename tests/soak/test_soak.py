"""The soak in a short form: with every kind of fault it finds nothing wrong, and what is planted in its store it finds."""

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
    "worker killed", "Redis killed", "Redis frozen", "Redis connections cut", "scripts flushed", "requests broken off",
)  # fmt: skip
OPERATIONS = ("create", "copy", "PUT", "PATCH", "GET", "DELETE", "list", "list of users", "shared PATCH", "shared count")
SEED = 12

#: Changes one value of one session, whichever comes first that has it.
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


def soak(output: Path, seconds: int) -> "subprocess.Popen[bytes]":
    """A soak under way, which prints into `output`."""
    command = [sys.executable, "-m", "tests.soak", "--seconds", str(seconds), "--seed", str(SEED)]
    with output.open("wb") as file:
        return subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdout=file, stderr=subprocess.STDOUT)


def test_a_short_soak_with_every_fault_finds_nothing_wrong(tmp_path: Path) -> None:
    output = tmp_path / "output"
    status = soak(output, 10).wait(4 * PATIENCE)
    said = output.read_text(encoding="utf-8")
    assert status == 0, said
    assert "all lists, users and documents are as the model has them; check is clean" in said
    # It did what it is there for.
    assert [name for name in (*FAULTS, *OPERATIONS) if not re.search(rf"\b{name} [1-9]", said)] == []
    assert re.search(r"uncertain writes +[1-9]", said)


def change_a_value(redis: Redis) -> None:
    redis.eval(WRONG_VALUE, 1, f"{PREFIX}sessions", PREFIX)


def leave_a_member(redis: Redis) -> None:
    redis.sadd(f'{PREFIX}index:0:agent="bot1"', 4000)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (change_a_value, r"session [0-9a-f-]{36}\n(?s:.*)the last requests to it:\n  [0-9:]{8} "),
        (leave_a_member, "check is not clean"),
    ],
)
def test_a_soak_finds_what_is_planted_in_its_store(tmp_path: Path, plant: Callable[[Redis], None], found: str) -> None:
    output = tmp_path / "output"
    soaking = soak(output, 3)
    until(lambda: "data directory" in output.read_text(encoding="utf-8"), "a soak under way")
    data = Path(output.read_text(encoding="utf-8").splitlines()[0].partition("data directory ")[2])
    # Once may be in vain: the session could be deleted, or written anew, before anybody looks.
    while soaking.poll() is None:
        with suppress(RedisError), Redis(unix_socket_path=str(socket_path(data)), socket_timeout=PATIENCE) as redis:
            plant(redis)
        with suppress(subprocess.TimeoutExpired):
            soaking.wait(0.5)
    said = output.read_text(encoding="utf-8")
    assert soaking.returncode == 1, said
    assert re.search(rf"WRONG, with --seed {SEED}: ", said), said
    assert re.search(found, said), said
