"""Servers that have forgotten scripts, several concurrently: every call is made once, and no caller sees NOSCRIPT."""

from collections.abc import Sequence
from typing import cast

from service.redis_client.client import RedisClient
from service.redis_client.errors import NoScriptError
from service.redis_client.multiplexer import Command
from service.store.scripts import Call, Script, run_many

ONE, OTHER = (Script(name, f"return '{name}'", f"sha of {name}", ("key",), ()) for name in ("one", "other"))


class ForgetfulServers:
    """Servers as a client sees them: a key belongs to the server that its first letter names."""

    def __init__(self) -> None:
        #: Pairs of server and SHA-1.
        self.loaded: set[tuple[str, str]] = set()
        self.runs: list[tuple[str, str]] = []
        self.round_trips = 0

    def _reply(self, command: Command) -> object:
        name, script, _, key, *_ = map(str, command)
        if name == "EVAL":
            script = next(each.sha for each in (ONE, OTHER) if each.source == script)
            self.loaded.add((key[0], script))
        if (key[0], script) not in self.loaded:
            return NoScriptError("NOSCRIPT No matching script")
        self.runs.append((script, key))
        return f"{script} on {key}"

    async def call(self, *command: str | bytes | int, writes: bool) -> object:
        (reply,) = await self.batch([command], writes=writes)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def batch(self, commands: Sequence[Command], *, writes: bool) -> list[object]:
        assert writes
        self.round_trips += 1
        return [self._reply(command) for command in commands]


def calls(script: Script, *keys: str) -> list[Call[str]]:
    return [Call(script, [key], [], str) for key in keys]


async def test_a_batch_whose_script_several_servers_have_forgotten_makes_every_call_once() -> None:
    servers = ForgetfulServers()
    client = cast("RedisClient", servers)
    keys = ["a1", "b1", "a2", "c1", "b2"]
    assert await run_many(client, calls(ONE, *keys)) == [f"{ONE.sha} on {key}" for key in keys]
    assert sorted(servers.runs) == [(ONE.sha, key) for key in sorted(keys)]
    # The batch, and one round trip for each server that has forgotten the script.
    assert servers.round_trips == 4
    assert await run_many(client, calls(ONE, *keys)) == [f"{ONE.sha} on {key}" for key in keys]
    assert servers.round_trips == 5


async def test_a_server_that_has_forgotten_one_script_still_has_the_other() -> None:
    servers = ForgetfulServers()
    client = cast("RedisClient", servers)
    for script in (ONE, OTHER):
        assert await Call(script, ["a1"], [], str).run(client) == f"{script.sha} on a1"
    servers.loaded.remove(("a", OTHER.sha))
    servers.round_trips = 0
    assert await run_many(client, calls(ONE, "a1", "a2")) == [f"{ONE.sha} on {key}" for key in ("a1", "a2")]
    assert servers.round_trips == 1
    assert await Call(OTHER, ["a1"], [], str).run(client) == f"{OTHER.sha} on a1"
    assert servers.round_trips == 3


async def test_a_batch_of_two_scripts_that_a_server_has_forgotten_makes_every_call_once() -> None:
    servers = ForgetfulServers()
    client = cast("RedisClient", servers)
    batch = [*calls(ONE, "a1"), *calls(OTHER, "a2"), *calls(ONE, "a3")]
    assert await run_many(client, batch) == [f"{ONE.sha} on a1", f"{OTHER.sha} on a2", f"{ONE.sha} on a3"]
    assert sorted(servers.runs) == sorted([(ONE.sha, "a1"), (OTHER.sha, "a2"), (ONE.sha, "a3")])
