"""The clock of Redis steps back: order, revisions and ETags stay correct.

The clock of a real Redis cannot be set, so these tests move all stored times into the future instead.
"""

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service
from service.configs.ttl import Ttl
from service.errors import NotFound, PreconditionFailed
from service.store import listing
from service.store.listing import Query
from service.store.record import Session
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.upkeep.sweeper import Sweeper
from service.store.users import Users
from tests.support.filling import add, document_of, lapse, on_every_redis, only, own, session_id

#: Microseconds; the correction of a wrong clock may step by years.
YEAR = 365 * 24 * 3600 * 1_000_000
IDS = [session_id(number) for number in range(1, 6)]


class History:
    """The states of a few sessions, checked against the invariants of time."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.live: dict[str, Session] = {}
        #: Every state so far: id, created_at, revision. An ETag consists of the last two.
        self.states: set[tuple[str, int, int]] = set()
        self.newest = 0

    async def step_back(self, microseconds: int) -> None:
        """Step the clock back."""
        redis, partition = self.sessions.redis, self.sessions.all_partitions[0]
        if self.newest:
            await redis.call("HINCRBY", partition.state, "created_at", microseconds)
            self.newest += microseconds
        for name in self.live:
            for time in ("created_at", "updated_at"):
                await redis.call("HINCRBY", partition.session(name), time, microseconds)
            self.live[name] = await self.sessions.get(name)
        self.states = {(name, created_at + microseconds, revision) for name, created_at, revision in self.states}

    async def create(self, name: str) -> None:
        if name not in self.live:
            created = await add(self.sessions, IDS.index(name) + 1, {"a": 1}, "alice")
            assert created.created_at > self.newest
            assert created.updated_at == created.created_at
            self.newest = created.created_at
            self._take(created)

    async def write(self, name: str, kind: str) -> None:
        before = self.live.get(name)
        if before is None:
            return
        write = self.sessions.patch if kind == "patch" else self.sessions.replace
        written = await write(name, document_of({"a": before.revision}), conditions=only(before.etag))
        after = await self.sessions.get(name)
        assert (written.revision, written.updated_at, written.etag) == (after.revision, after.updated_at, after.etag)
        assert after.revision == before.revision + 1
        assert after.updated_at >= before.updated_at
        assert after.created_at == before.created_at
        self._take(after)
        with pytest.raises(PreconditionFailed):
            await write(name, document_of({"a": 0}), conditions=only(before.etag))

    async def delete(self, name: str) -> None:
        if name in self.live:
            await self.sessions.delete(name, conditions=only(self.live.pop(name).etag))

    def _take(self, session: Session) -> None:
        state = session.id, session.created_at, session.revision
        assert session.etag == f"{session.created_at}-{session.revision}"
        assert state not in self.states
        self.states.add(state)
        self.live[session.id] = session

    async def verify(self) -> None:
        """Lists and their created_at are in order of creation, in both directions; the index is correct."""
        for query in (Query(), Query(user="alice")):
            matches = (await listing.page(self.sessions, query, 200)).sessions
            assert [session.id for session in matches] == [name for name in self._in_order() if name in self.live]
            assert [each.created_at for each in matches] == sorted({each.created_at for each in matches})
            descending = await listing.page(self.sessions, Query(user=query.user, descending=True), 200)
            assert descending.sessions == matches[::-1]
        check = Check(self.sessions.redis, self.sessions.all_partitions[0])
        assert [str(finding) async for finding in check.findings()] == []

    def _in_order(self) -> list[str]:
        return sorted(self.live, key=lambda name: self.live[name].serial)


@on_every_redis
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
async def test_a_clock_that_steps_back_breaks_no_order_and_repeats_no_etag(sessions: Sessions, seed: int) -> None:
    await sessions.redis.call("FLUSHALL")
    await own(sessions)
    history, random = History(sessions), Random(seed)
    for _ in range(25):
        name = random.choice(IDS)
        match random.choice(("create", "create", "patch", "replace", "delete", "step")):
            case "create":
                await history.create(name)
            case "delete":
                await history.delete(name)
            case "step":
                await history.step_back(random.choice((1, 1_000, YEAR)))
            case kind:
                await history.write(name, kind)
    await history.verify()


async def test_a_session_recreated_after_the_clock_stepped_back_has_another_etag(sessions: Sessions) -> None:
    history = History(sessions)
    for _ in range(3):
        await history.create(IDS[0])
        for kind in ("patch", "replace"):
            await history.write(IDS[0], kind)
        await history.delete(IDS[0])
        await history.step_back(YEAR)
    assert len(history.states) == 9


@pytest.mark.parametrize("step", [60_000_000, YEAR])
async def test_an_expired_session_is_readable_again_after_the_clock_stepped_back(sessions: Sessions, step: int) -> None:
    history = History(sessions)
    for name in IDS[:3]:
        await history.create(name)
    await lapse(sessions, IDS[1])
    with pytest.raises(NotFound):
        await sessions.get(IDS[1])
    del history.live[IDS[1]]
    await history.step_back(step)
    partition = sessions.partition(IDS[1])
    for time in ("created_at", "updated_at", "expires_at"):
        await sessions.redis.call("HINCRBY", partition.session(IDS[1]), time, step)
    await sessions.redis.call("ZINCRBY", partition.expiring, step, IDS[1])
    # The sweep keeps it; it is in lists and in the index, and can be written.
    await Sweeper(sessions.redis, 1, 4).round()
    history.live[IDS[1]] = await sessions.get(IDS[1])
    await history.verify()
    await sessions.patch(IDS[1], document_of({"b": 1}), ttl=Ttl(5))
    # The new TTL starts now, not at the time of the last write.
    (seconds, micros) = map(int, await sessions.redis.call("TIME"))
    remaining = ((await sessions.get(IDS[1])).expires_at or 0) - (seconds * 1_000_000 + micros)
    assert 0 < remaining <= 5_000_000
    await lapse(sessions, IDS[1])
    await Sweeper(sessions.redis, 1, 4).round()
    history.live.pop(IDS[1])
    await history.verify()


async def test_users_stay_in_order_of_creation_after_the_clock_stepped_back(users: Users) -> None:
    redis, key = users.sessions.redis, f"scc:{{{users.sessions.project.slug}}}:users"
    await users.sessions.registration.register("alice")
    await redis.call("ZINCRBY", key, YEAR, "alice")
    for name in ("bob", "anna"):
        await users.sessions.registration.register(name)
    page, _ = await users.page(limit=10, after=None, descending=False)
    assert [user.identifier for user in page] == ["alice", "bob", "anna"]


#: Every file that reads a clock which can step, or sends a time to Redis: what the clock decides, and the test that steps it.
CLOCKS = {
    "http/server/response.py": "the Date header: the present time, whatever it was before",
    "process/aof_tail.py": "the name of a file, which is compared with nothing",
    "store/lua/find_candidates.lua": "which sessions of a page are expired: test_an_expired_session_is_readable_again…",
    "store/lua/include/commit.lua": "all times of a write: the tests above",
    "store/lua/include/user.lua": "the order of users: test_users_stay_in_order_of_creation…",
    "store/lua/preflight.lua": "whether TIME is allowed, not its reply",
    "store/lua/rate_limit.lua": "tests/store/test_rate_limit.py: …_blocks_a_key_for_one_interval_at_most",
    "store/upkeep/preflight.py": "as above",
    "store/manifest.py": "a restored store's generation: test_each_restore_has_a_generation_of_its_own",
    "store/projects.py": "a project's created_at, which is compared with nothing",
    "store/sessions.py": "whether a session is expired: test_an_expired_session_is_readable_again…",
    "store/upkeep/project_check.py": "the created_at that a damaged project record gets, as above",
    "store/upkeep/project_import.py": "how far ahead a time of a file may be, and which of its sessions have expired, now",
    "store/upkeep/sweeper.py": "what has expired, and the lease: test_sweep_lease.py: …_does_not_stop_the_sweep",
}

_CLOCK = re.compile(r'"(?:TIME|PX|EX|P?EXPIRE(?:AT)?|P?TTL|PXAT|EXAT|GETEX|P?SETEX)"|time\.time\(|datetime\.now\(')


def test_every_use_of_a_clock_that_can_step_is_listed() -> None:
    root = Path(service.__file__).parent
    sources = [path for path in root.rglob("*") if path.suffix in (".py", ".lua")]
    uses = {str(path.relative_to(root)) for path in sources if _CLOCK.search(path.read_text(encoding="utf-8"))}
    assert uses == set(CLOCKS)
