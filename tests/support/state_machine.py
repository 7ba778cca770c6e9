"""Random operations on a store and a model of it: after every step the whole keyspace is what the model says."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

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
from tests.support.filling import PROJECT, document_of, keyspace, lapse, own, session_id, sweep_all
from tests.support.model import Entry, Model, fits, merged, spans
from tests.support.strategies import any_configs, spell

Result = TypeVar("Result")
Configs = dict[str, Any]
#: What If-Match and If-None-Match name, see `ETAGS`.
ETagNames = tuple[str | None, str | None]

#: Few, so that ids are used again after a deletion, and most operations find a session.
IDS = [session_id(number) for number in range(10)]
USERS = ("alice@example.com", 'b"o\\b', "кот 😀")
#: Small, so that some writes are refused.
LIMITS = Limits(max_configs_bytes=1500, max_keys=7, max_terms=90)
#: ETags that a condition names, by their relation to the session's own; None for no condition.
ETAGS = (None, None, None, "any", "right", "wrong", "none")

_indexes = st.integers(0, 50)
_seeds = st.integers(0, 2**32)
_users = st.sampled_from((None, *USERS))
#: Lifetimes that a write asks for: the current one, none, and some that end only when a step ends them.
_ttls = st.sampled_from((None, None, None, 0, 1000, TTL_MAX))
_conditions = st.tuples(st.sampled_from(ETAGS), st.sampled_from(ETAGS))
#: Configs that share their terms.
_small = st.dictionaries(st.sampled_from("abc"), st.sampled_from((1, 2, [1, 2], {"x": 1, "y": [1]})), max_size=3)


def _ttl(seconds: int | None) -> Ttl:
    """The TTL of a write; None if the write does not specify one."""
    return UNSPECIFIED if seconds is None else Ttl(seconds)


class StoreMachine(RuleBasedStateMachine):
    """Operations on the store that `connect` opens. Sessions are chosen by an index into those that exist."""

    def __init__(self, connect: Callable[[], RedisClient], partitions: int, block_size: int) -> None:
        super().__init__()
        # A loop of its own leaves alone the one that asynchronous tests run in.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._has_failed = False
        self.redis = self._runner.run(_opened(connect))
        self.adopt(partitions, block_size)
        self.model = Model(self.sessions)
        self.kinds: list[Configs] = [{}]

    def adopt(self, partitions: int, block_size: int) -> None:
        """Work on the store's sessions in so many partitions."""
        self.sessions = Sessions(self.redis, PROJECT, LIMITS, partitions, block_size)
        self.users = Users(self.sessions)

    def do(self, operation: Coroutine[Any, Any, Result]) -> Result:
        """Run an operation to its end."""
        self._has_failed = True
        result = self._runner.run(operation)
        self._has_failed = False
        return result

    def teardown(self) -> None:
        """Check that nothing is left of deleted sessions, unless a step has failed, and close."""
        try:
            if not self._has_failed:
                self.do(self.finish())
        finally:
            self._runner.run(self.redis.close())
            self._runner.close()

    async def finish(self) -> None:
        """Delete every session; only states, users and the project remain."""
        await self.sessions.delete_many(list(self.model.entries))
        self.model.entries = {}
        actual = await keyspace(self.redis)
        assert actual == self.model.keyspace(), actual
        assert all(key.endswith((":state", ":users", ":project")) for key in actual)

    @initialize(kinds=st.lists(any_configs(), min_size=1, max_size=6))
    def start(self, kinds: list[Configs]) -> None:
        """Empty the store. `kinds` are the configs to choose from, besides small ones."""
        self.kinds = kinds
        self.do(self._start())

    async def _start(self) -> None:
        await self.redis.call_on_masters("FLUSHALL", writes=True)
        await own(self.sessions)

    @invariant()
    def store_is_what_the_model_says(self) -> None:
        """The keyspace is the model's, a check finds nothing, lists and counts are complete."""
        self.do(self.verify())

    async def verify(self) -> None:
        actual, expected = await keyspace(self.redis), self.model.keyspace()
        wrong = {
            name: (actual.get(name), expected.get(name))
            for name in {*actual, *expected}
            if actual.get(name) != expected.get(name)
        }
        assert wrong == {}, f"actual and expected: {wrong}"
        for partition in self.sessions.all_partitions:
            assert [str(finding) async for finding in Check(self.redis, partition).findings()] == []
        listed = [session.id async for batch in iter_matches(self.sessions, Query()) for session in batch]
        assert listed == self.model.listed
        for user in self.model.users:
            count = sum(entry.user == user and not entry.is_expired for entry in self.model.entries.values())
            assert await self.users.count_sessions(user) == count

    @rule(index=_indexes, user=_users, tracking=st.booleans(), ttl=_ttls, kind=_indexes, seed=_seeds)
    def create(self, index: int, user: str | None, tracking: bool, ttl: int | None, kind: int, seed: int) -> None:
        self.do(self._create(self._id_to_create(index), self.kinds[kind % len(self.kinds)], user, tracking, ttl, seed))

    @rule(index=_indexes, user=_users, tracking=st.booleans(), ttl=_ttls, configs=st.none() | _small, seed=_seeds)
    def create_small(
        self, index: int, user: str | None, tracking: bool, ttl: int | None, configs: Configs | None, seed: int
    ) -> None:
        self.do(self._create(self._id_to_create(index), configs, user, tracking, ttl, seed))

    def _id_to_create(self, index: int) -> str:
        """One of a few ids; the expired sessions' ids come more often."""
        expired = [name for name, entry in self.model.entries.items() if entry.is_expired]
        names = [*IDS, *expired, *expired]
        return names[index % len(names)]

    async def _create(
        self, name: str, configs: Configs | None, user: str | None, tracking: bool, ttl: int | None, seed: int
    ) -> None:
        values, document = (None, None) if configs is None else self._spelled(configs, seed)
        if values is not None and document is None:
            return
        existing, since = self.model.living(name), await self._clock()
        note(f"create {name} {values}")
        creation = self.sessions.create_session(name, document, user=user, disable_task_tracking=tracking, ttl=_ttl(ttl))
        reply = await self._attempt(creation, None if values is None or fits(values, LIMITS) else ConfigsTooLarge)
        if reply is None:
            return
        session, is_new = reply
        assert is_new is (existing is None)
        if existing is None:
            await self._check_expiry(session.expires_at, self.model.ttl if ttl is None else ttl, since)
            self.model.create(session, values, user, tracking)
            await self._register(user)
        else:
            assert (session.configs, session.revision, session.serial) == (existing.configs, existing.revision, existing.serial)
            assert (session.user, session.disable_task_tracking) == (existing.user, existing.tracking)
            assert session.expires_at == existing.expires_at

    @rule(index=_indexes, conditions=_conditions, ttl=_ttls, configs=_small | _indexes, seed=_seeds)
    def replace(self, index: int, conditions: ETagNames, ttl: int | None, configs: Configs | int, seed: int) -> None:
        self.do(self._replace(index, conditions, ttl, self._kind(configs), seed))

    async def _replace(self, index: int, names: ETagNames, ttl: int | None, configs: Configs, seed: int) -> None:
        name, entry = self._session(index)
        values, document = self._spelled(configs, seed)
        if document is None:
            return
        conditions, error = _condition(entry, names)
        since = await self._clock()
        note(f"replace {name} {values}")
        # The size is checked before the session is looked up.
        writing = self.sessions.replace(name, document, conditions=conditions, ttl=_ttl(ttl))
        written = await self._attempt(writing, error if fits(values, LIMITS) else ConfigsTooLarge)
        if written is not None:
            self.model.write(name, written, values)
            await self._take_expiry(name, ttl, since)

    @rule(index=_indexes, conditions=_conditions, ttl=_ttls, configs=_small, seed=_seeds)
    def patch_small(self, index: int, conditions: ETagNames, ttl: int | None, configs: Configs, seed: int) -> None:
        self.do(self._patch(index, conditions, ttl, configs, seed))

    @rule(index=_indexes, conditions=_conditions, ttl=_ttls, kind=_indexes, seed=_seeds)
    def patch(self, index: int, conditions: ETagNames, ttl: int | None, kind: int, seed: int) -> None:
        self.do(self._patch(index, conditions, ttl, self._kind(kind), seed))

    async def _patch(self, index: int, names: ETagNames, ttl: int | None, configs: Configs, seed: int) -> None:
        name, entry = self._session(index)
        changes, document = self._spelled(configs, seed, nulls=True)
        if document is None:
            return
        conditions, error = _condition(entry, names)
        since = await self._clock()
        note(f"patch {name} {changes}")
        values = merged(entry.values if entry else None, changes)
        if error is None and not fits(values, LIMITS):
            error = ConfigsTooLarge
        written = await self._attempt(self.sessions.patch(name, document, conditions=conditions, ttl=_ttl(ttl)), error)
        if written is not None:
            self.model.write(name, written, values)
            await self._take_expiry(name, ttl, since)
            assert written.configs == self.model.entries[name].configs

    @rule(index=_indexes, conditions=_conditions)
    def delete(self, index: int, conditions: ETagNames) -> None:
        self.do(self._delete(index, conditions))

    async def _delete(self, index: int, names: ETagNames) -> None:
        name, entry = self._session(index)
        conditions, error = _condition(entry, names)
        note(f"delete {name}")
        await self._attempt(self.sessions.delete(name, conditions=conditions), error)
        # Nothing is left of an expired session either.
        if error is None or entry is None:
            self.model.entries.pop(name, None)

    @rule(index=_indexes, number=st.integers(20, 10**6))
    def copy(self, index: int, number: int) -> None:
        self.do(self._copy(index, session_id(number)))

    async def _copy(self, index: int, new: str) -> None:
        name, entry = self._session(index)
        if new in self.model.entries:
            return
        note(f"copy {name} to {new}")
        since = await self._clock()
        copied = await self._attempt(self.sessions.copy_session(name, new), None if entry else SessionNotFound)
        if copied is not None and entry is not None:
            await self._check_expiry(copied.expires_at, self.model.ttl, since)
            self.model.create(copied, entry.values, entry.user, entry.tracking)
            await self._register(entry.user)

    @rule(index=_indexes)
    def get(self, index: int) -> None:
        self.do(self._get(index))

    async def _get(self, index: int) -> None:
        name, entry = self._session(index)
        note(f"get {name}")
        session = await self._attempt(self.sessions.get(name), None if entry else SessionNotFound)
        if entry is not None:
            assert session is not None
            assert (session.configs, session.etag) == (entry.configs, f"{entry.created_at}-{entry.revision}")
            assert (session.user, session.disable_task_tracking, session.expires_at) == (
                entry.user, entry.tracking, entry.expires_at,
            )  # fmt: skip

    @rule(user=st.sampled_from((*USERS, "nobody", "nothing")))
    def delete_user(self, user: str) -> None:
        self.do(self.users.delete(user))
        self.model.users.pop(user, None)
        self.model.entries = {name: entry for name, entry in self.model.entries.items() if entry.user != user}

    @rule(user=st.sampled_from(USERS))
    def register(self, user: str) -> None:
        self.do(self._register(user))

    async def _register(self, user: str | None) -> None:
        if user is None:
            return
        await self.sessions.registration.register(user)
        page, cursor = await self.users.page(limit=1000, after=None, descending=False)
        created = {each.identifier: each.created_at for each in page}
        assert cursor is None
        if user not in self.model.users:
            assert created[user] > max(self.model.users.values(), default=0)
            self.model.users[user] = created[user]
        assert list(created) == sorted(self.model.users, key=self.model.users.__getitem__)

    @rule(index=_indexes)
    def expire(self, index: int) -> None:
        """The lifetime of a session ends."""
        name, entry = self._session(index)
        note(f"expire {name}")
        if entry is not None:
            entry.expires_at, entry.is_expired = self.do(lapse(self.sessions, name)), True

    @rule()
    def sweep(self) -> None:
        self.do(sweep_all(self.sessions))
        self.model.sweep()

    @rule(ttl=st.sampled_from((None, 50, 7000)))
    def set_default_ttl(self, ttl: int | None) -> None:
        self.do(ProjectConfigs(self.sessions).patch(document_of({"session_ttl": ttl})))
        self.model.ttl, self.model.revision = ttl or 0, self.model.revision + 1

    async def _clock(self) -> int:
        return microseconds(await self.redis.call("TIME", near=0))

    async def _check_expiry(self, expires_at: int | None, ttl: int, since: int) -> None:
        """A lifetime of `ttl` seconds that began after the moment `since` ends when it should."""
        if ttl == 0:
            assert expires_at is None
        else:
            assert expires_at is not None
            assert since <= expires_at - ttl * 1_000_000 <= await self._clock()

    async def _take_expiry(self, name: str, ttl: int | None, since: int) -> None:
        """A write that asked for a lifetime has set it; the invariant sees that any other has not."""
        if ttl is not None:
            self.model.entries[name].expires_at = (await self.sessions.get(name)).expires_at
            await self._check_expiry(self.model.entries[name].expires_at, ttl, since)

    async def _attempt(self, operation: Awaitable[Result], error: type[Exception] | None) -> Result | None:
        """The result of an operation, or None if it failed with `error`, which it must if that is given."""
        result, actual = None, None
        try:
            result = await operation
        except (SessionNotFound, ConfigsTooLarge, PreconditionFailed) as raised:
            actual = type(raised)
        assert actual is error
        return result

    def _session(self, index: int) -> tuple[str, Entry | None]:
        """A session, most likely one that exists; what a request should see of it, None where it has expired."""
        names = [*self.model.entries, IDS[index % len(IDS)]]
        name = names[index % len(names)]
        return name, self.model.living(name)

    def _kind(self, choice: Configs | int) -> Configs:
        return self.kinds[choice % len(self.kinds)] if isinstance(choice, int) else choice

    def _spelled(self, value: Configs, seed: int, *, nulls: bool = False) -> tuple[dict[str, str], Document | None]:
        """Configs in the spelling that `seed` gives: for the model, and for the service, None if it refuses them.

        With `nulls` some members are null.
        """
        random = Random(seed)
        if nulls:
            value = {key: None if random.random() < 0.3 else item for key, item in value.items()}
        raw = spell(value, random).encode()
        values = spans(raw.decode())
        # The model rests on `spans`: it must read what was meant.
        assert {key: exact(span.encode()) for key, span in values.items()} == value
        assert list(values) == list(value)
        try:
            return values, document_of(raw, LIMITS)
        except ConfigsTooLarge:
            assert not fits(values, LIMITS)
            return values, None


async def _opened(connect: Callable[[], RedisClient]) -> RedisClient:
    return connect()


def _condition(entry: Entry | None, names: ETagNames) -> tuple[Conditions, type[Exception] | None]:
    """If-Match and If-None-Match with the ETags that are named, and the error that a write to the session then meets."""
    etag = f"{entry.created_at}-{entry.revision}" if entry else "1-1"
    wrong = frozenset({f"{etag}1", f"1{etag}", etag[:-1]})
    etags: dict[str | None, ETags | None] = {
        None: None, "any": ETags(any=True), "right": ETags(wrong | {etag}), "wrong": ETags(wrong), "none": ETags(),
    }  # fmt: skip
    if_match, if_none_match = names
    conditions = Conditions(etags[if_match], etags[if_none_match])
    if if_match is not None and (entry is None or if_match not in ("any", "right")):
        return conditions, PreconditionFailed
    if entry is None:
        return conditions, SessionNotFound
    return conditions, PreconditionFailed if if_none_match in ("any", "right") else None


def run_random_operations(machine: Callable[[], StoreMachine], *, examples: int, steps: int) -> None:
    """Run `examples` of up to `steps` operations on new machines; a failure is shrunk to the fewest operations."""
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]  # any callable that makes one will do, see its documentation
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
