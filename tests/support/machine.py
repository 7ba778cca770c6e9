"""Random operations on a store beside a model of it: after every step the whole keyspace is what the model says."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from service.configs.containment import exact
from service.configs.document import Document
from service.configs.limits import Limits
from service.configs.ttl import TTL_MAX, UNSPECIFIED, Ttl
from service.errors import ConfigsTooLarge, PreconditionFailed, SessionNotFound
from service.redis_client.client import RedisClient
from service.store.conditions import Conditions, ETags
from service.store.listing import Query, iter_matches
from service.store.project_configs import ProjectConfigs
from service.store.record import microseconds
from service.store.sessions import Sessions
from service.store.upkeep.partition_check import Check
from service.store.users import Users
from tests.support import strategies
from tests.support.filling import PROJECT, document_of, keyspace, lapse, own, session_id, sweep_all
from tests.support.model import Held, Model, fits, merged, spans
from tests.support.strategies import spell

Result = TypeVar("Result")
Configs = dict[str, Any]

#: Few enough that ids come again after a deletion, and that most operations meet a session.
IDS = [session_id(number) for number in range(10)]
USERS = ("alice@example.com", 'b"o\\b', "кот 😀")
#: Small, so that some writes are refused.
LIMITS = Limits(max_configs_bytes=1500, max_keys=7, max_terms=90)
#: Lifetimes that a write asks for: what it finds, none, and some that only end when they are made to.
TTLS = (None, None, None, 0, 1000, TTL_MAX)
#: Operations and how often each is chosen.
WEIGHTS = {
    "create": 8, "patch": 9, "replace": 4, "delete": 3, "copy": 3, "get": 3, "delete_user": 1, "register": 1,
    "end": 4, "sweep": 1, "count": 1, "set_default": 1,
}  # fmt: skip


def ttl_of(seconds: int | None) -> Ttl:
    """The TTL of a write; None if the write does not specify one."""
    return UNSPECIFIED if seconds is None else Ttl(seconds)


class Machine:
    """One run of random operations. `kinds` are the configs to choose from, beside small ones that share their terms."""

    def __init__(self, redis: RedisClient, partitions: int, block_size: int, kinds: list[Configs], seed: int) -> None:
        self.redis = redis
        self.sessions = Sessions(redis, PROJECT, LIMITS, partitions, block_size)
        self.users = Users(self.sessions)
        self.model = Model(self.sessions)
        self.kinds = kinds
        self.random = Random(seed)

    async def run(self, steps: int) -> None:
        """Do `steps` operations, holding the store to the model after each, then delete every session."""
        await self.redis.call_on_masters("FLUSHALL", writes=True)
        await own(self.sessions)
        for name in self.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
            await getattr(self, name)()
            await self.hold()
        await self.sessions.delete_many(list(self.model.held))
        self.model.held = {}
        left = await keyspace(self.redis)
        assert left == self.model.keyspace(), left
        assert all(key.endswith((":state", ":users", ":project")) for key in left)

    async def hold(self) -> None:
        """The keyspace is what the model says, a check finds nothing, and a walk meets what it should."""
        there, right = await keyspace(self.redis), self.model.keyspace()
        wrong = {name: (there.get(name), right.get(name)) for name in {*there, *right} if there.get(name) != right.get(name)}
        assert wrong == {}, f"what is there, and what should be: {wrong}"
        for partition in self.sessions.all_partitions:
            assert [str(finding) async for finding in Check(self.redis, partition).findings()] == []
        met = [session.id async for batch in iter_matches(self.sessions, Query()) for session in batch]
        assert met == self.model.listed
        await self.count()

    async def count(self) -> None:
        for user in self.model.users:
            own = sum(held.user == user and not held.over for held in self.model.held.values())
            assert await self.users.count_sessions(user) == own

    async def get(self) -> None:
        name, held = self.one()
        note(f"get {name}")
        found = await self.attempt(self.sessions.get(name), None if held else SessionNotFound)
        if held is not None:
            assert found is not None
            assert (found.configs, found.etag) == (held.configs, f"{held.created_at}-{held.revision}")
            assert (found.user, found.disable_task_tracking, found.expires_at) == (held.user, held.tracking, held.expires_at)

    async def end(self) -> None:
        """The lifetime of a session is over."""
        name, held = self.one()
        note(f"end {name}")
        if held is not None:
            held.expires_at, held.over = await lapse(self.sessions, name), True

    async def sweep(self) -> None:
        note("sweep")
        await sweep_all(self.sessions)
        self.model.sweep()

    async def set_default(self) -> None:
        ttl = self.random.choice((None, 50, 7000))
        note(f"default lifetime {ttl}")
        await ProjectConfigs(self.sessions).patch(document_of({"session_ttl": ttl}))
        self.model.ttl, self.model.revision = ttl or 0, self.model.revision + 1

    async def clock(self) -> int:
        return microseconds(await self.redis.call("TIME", near=0))

    async def hold_end(self, expires_at: int | None, ttl: int, since: int) -> None:
        """A lifetime of `ttl` seconds that began after the moment `since` ends when it should."""
        if ttl == 0:
            assert expires_at is None
        else:
            assert expires_at is not None
            assert since <= expires_at - ttl * 1_000_000 <= await self.clock()

    async def create(self) -> None:
        over = [name for name, held in self.model.held.items() if held.over]
        name = self.random.choice(over if over and self.random.random() < 0.4 else IDS)
        user, tracking = self.user(), self.random.random() < 0.5
        values, document = (None, None) if self.random.random() < 0.1 else self.configs()
        if values is not None and document is None:
            return
        known, ttl, since = self.model.living(name), self.random.choice(TTLS), await self.clock()
        note(f"create {name} {values} for {user} with a lifetime of {ttl}")
        creation = self.sessions.create_session(name, document, user=user, disable_task_tracking=tracking, ttl=ttl_of(ttl))
        reply = await self.attempt(creation, None if values is None or fits(values, LIMITS) else ConfigsTooLarge)
        if reply is None:
            return
        made, new = reply
        assert new is (known is None)
        if known is None:
            await self.hold_end(made.expires_at, self.model.ttl if ttl is None else ttl, since)
            self.model.create(made, values, user, tracking)
            await self.register(user)
        else:
            assert (made.configs, made.revision, made.serial) == (known.configs, known.revision, known.serial)
            assert (made.user, made.disable_task_tracking) == (known.user, known.tracking)
            assert made.expires_at == known.expires_at

    async def replace(self) -> None:
        name, held = self.one()
        values, document = self.configs()
        if document is None:
            return
        conditions, error = self.condition(held)
        ttl, since = self.random.choice(TTLS), await self.clock()
        note(f"replace {name} {values} if {conditions} with a lifetime of {ttl}")
        # The size is looked at before the session is.
        writing = self.sessions.replace(name, document, conditions=conditions, ttl=ttl_of(ttl))
        written = await self.attempt(writing, error if fits(values, LIMITS) else ConfigsTooLarge)
        if written is not None:
            self.model.write(name, written, values)
            await self.new_end(name, ttl, since)

    async def patch(self) -> None:
        name, held = self.one()
        changes, document = self.configs(nulls=True)
        if document is None:
            return
        conditions, error = self.condition(held)
        ttl, since = self.random.choice(TTLS), await self.clock()
        note(f"patch {name} {changes} if {conditions} with a lifetime of {ttl}")
        values = merged(held.values if held else None, changes)
        if error is None and not fits(values, LIMITS):
            error = ConfigsTooLarge
        written = await self.attempt(self.sessions.patch(name, document, conditions=conditions, ttl=ttl_of(ttl)), error)
        if written is not None:
            self.model.write(name, written, values)
            await self.new_end(name, ttl, since)
            assert written.configs == self.model.held[name].configs

    async def new_end(self, name: str, ttl: int | None, since: int) -> None:
        """A write that asked for a lifetime has given it; one that did not has left it as it was."""
        if ttl is not None:
            self.model.held[name].expires_at = (await self.sessions.get(name)).expires_at
            await self.hold_end(self.model.held[name].expires_at, ttl, since)

    async def delete(self) -> None:
        name, held = self.one()
        conditions, error = self.condition(held)
        note(f"delete {name} if {conditions}")
        await self.attempt(self.sessions.delete(name, conditions=conditions), error)
        # Over or not: nothing is left of it.
        if error is None or held is None:
            self.model.held.pop(name, None)

    async def copy(self) -> None:
        name, held = self.one()
        new = session_id(self.random.randint(20, 10**6))
        note(f"copy {name} to {new}")
        since = await self.clock()
        copied = await self.attempt(self.sessions.copy_session(name, new), None if held else SessionNotFound)
        if copied is not None and held is not None:
            await self.hold_end(copied.expires_at, self.model.ttl, since)
            self.model.create(copied, held.values, held.user, held.tracking)
            await self.register(held.user)

    async def delete_user(self) -> None:
        user = self.random.choice(USERS)
        note(f"delete user {user}")
        await self.users.delete(user)
        self.model.users.pop(user, None)
        self.model.held = {name: held for name, held in self.model.held.items() if held.user != user}

    async def register(self, user: str | None = USERS[0]) -> None:
        if user is None:
            return
        await self.sessions.registration.register(user)
        found, cursor = await self.users.page(limit=1000, after=None, descending=False)
        created = {each.identifier: each.created_at for each in found}
        assert cursor is None
        if user not in self.model.users:
            assert created[user] > max(self.model.users.values(), default=0)
            self.model.users[user] = created[user]
        assert list(created) == sorted(self.model.users, key=self.model.users.__getitem__)

    async def attempt(self, operation: Awaitable[Result], error: type[Exception] | None) -> Result | None:
        """The result of an operation, or None where it failed with `error`, as it then must."""
        result, failed = None, None
        try:
            result = await operation
        except (SessionNotFound, ConfigsTooLarge, PreconditionFailed) as raised:
            failed = type(raised)
        assert failed is error
        return result

    def user(self) -> str | None:
        return self.random.choice((None, *USERS))

    def one(self) -> tuple[str, Held | None]:
        """A session, most likely one that is there; as it should be found, None where its lifetime is over."""
        name = self.random.choice(list(self.model.held) or IDS) if self.random.random() < 0.9 else self.random.choice(IDS)
        return name, self.model.living(name)

    def condition(self, held: Held | None) -> tuple[Conditions, type[Exception] | None]:
        """Conditions, and the error that a write to the session then meets."""
        etag = f"{held.created_at}-{held.revision}" if held else "1-1"
        wrong = ETags(frozenset({f"{etag}1", f"1{etag}", etag[:-1]}))
        choices = (None, None, None, ETags(any=True), ETags(wrong.tags | {etag}), wrong, ETags())
        conditions = Conditions(*self.random.choices(choices, k=2))
        if conditions.if_match is not None and (held is None or conditions.if_match not in choices[3:5]):
            return conditions, PreconditionFailed
        if held is None:
            return conditions, SessionNotFound
        return conditions, PreconditionFailed if conditions.if_none_match in choices[3:5] else None

    def configs(self, *, nulls: bool = False) -> tuple[dict[str, str], Document | None]:
        """Some configs, spelled in some way: as the model has them, and as the service does, None where it refuses them.

        With `nulls` some members are null.
        """
        random = self.random
        small = {key: random.choice((1, 2, [1, 2], {"x": 1, "y": [1]})) for key in "abc" if random.random() < 0.6}
        value: Configs = random.choice((small, small, random.choice(self.kinds)))
        if nulls:
            value = {key: None if random.random() < 0.3 else item for key, item in value.items()}
        raw = spell(value, random).encode()
        values = spans(raw.decode())
        # The model stands on `spans`: it must read what was meant.
        assert {key: exact(span.encode()) for key, span in values.items()} == value
        assert list(values) == list(value)
        try:
            return values, document_of(raw, LIMITS)
        except ConfigsTooLarge:
            assert not fits(values, LIMITS)
            return values, None


def try_out(connect: Callable[[], RedisClient], *, partitions: int, block_size: int, examples: int, steps: int) -> None:
    """Let machines run on the store that `connect` opens."""

    # Not shrunk: all but the configs hangs on one seed; the operations are in the notes of a failure.
    @settings(
        max_examples=examples,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(strategies.any_configs(), min_size=1, max_size=6), st.integers(0, 2**32))
    def run(kinds: list[Configs], seed: int) -> None:
        asyncio.run(run_one(kinds, seed))

    async def run_one(kinds: list[Configs], seed: int) -> None:
        redis = connect()
        try:
            await Machine(redis, partitions, block_size, kinds, seed).run(steps)
        finally:
            await redis.close()

    run()
