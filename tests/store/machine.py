"""Random operations on a store beside a model of it: after every step the whole keyspace is what the model says."""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from service.configs.containment import exact
from service.configs.limits import Limits
from service.errors import NotFound, PreconditionFailed, TooLarge
from service.store.connection import Link
from service.store.integrity import Check
from service.store.sessions import Sessions
from service.store.users import Users
from tests.store.filling import PROJECT, document_of, keyspace, session_id
from tests.store.model import Model, fits, merged, spans
from tests.unit import strategies
from tests.unit.strategies import Spelled, spell

Result = TypeVar("Result")

#: Few enough that ids come again after a deletion, and that most operations meet a session.
IDS = st.integers(0, 9).map(session_id)
USERS = st.sampled_from(("alice@example.com", 'b"o\\b', "кот 😀"))
#: Small, so that some writes are refused.
LIMITS = Limits(max_configs_bytes=1500, max_keys=7, max_terms=90)


SEEDS = st.integers(0, 2**32)


@st.composite
def configs(draw: st.DrawFn, *, nulls: bool = False) -> Spelled:
    """Small configs as well as awkward ones, spelled in any way; with `nulls` some members are null."""
    value = draw(strategies.small_configs() | strategies.any_configs())
    random = Random(draw(SEEDS))
    if nulls:
        value = {key: None if random.random() < 0.3 else item for key, item in value.items()}
    return Spelled(spell(value, random).encode(), value)


class StoreMachine(RuleBasedStateMachine):
    """Operations on one project; `connect` opens the store to work on, which is emptied first."""

    def __init__(self, connect: Callable[[], Link], partitions: int, block_size: int) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.link = self.run(self._connected(connect))
        self.sessions = Sessions(self.link, PROJECT, LIMITS, partitions, block_size)
        self.users = Users(self.sessions)
        self.model = Model(self.sessions)

    @staticmethod
    async def _connected(connect: Callable[[], Link]) -> Link:
        link = connect()
        await link.call("FLUSHALL")
        return link

    def run(self, coroutine: Awaitable[Result]) -> Result:
        async def awaited() -> Result:
            return await coroutine

        return self.runner.run(awaited())

    def attempt(self, coroutine: Awaitable[Result], error: type[Exception] | None) -> Result | None:
        """The result of an operation, or None where it failed with `error`, as it then must."""
        result, failed = None, None
        try:
            result = self.run(coroutine)
        except (NotFound, TooLarge, PreconditionFailed) as raised:
            failed = type(raised)
        assert failed is error
        return result

    async def _register(self, user: str | None) -> None:
        if user is None:
            return
        await self.users.register(user)
        found, cursor = await self.users.page(limit=0, after=None, descending=False)
        created = {each.identifier: each.created_at for each in found}
        assert cursor is None
        if user not in self.model.users:
            assert created[user] > max(self.model.users.values(), default=0)
            self.model.users[user] = created[user]
        assert list(created) == sorted(self.model.users, key=self.model.users.__getitem__)

    @rule(name=IDS, spelled=st.none() | configs(), user=st.none() | USERS, tracking=st.booleans())
    def create(self, name: str, spelled: Spelled | None, user: str | None, tracking: bool) -> None:
        values = None if spelled is None else spans(spelled.raw.decode())
        known = self.model.held.get(name)
        try:
            document = None if spelled is None else document_of(spelled.raw, LIMITS)
        except TooLarge:
            assert values is not None
            assert not fits(values, LIMITS)
            return
        error = TooLarge if values is not None and not fits(values, LIMITS) else None
        creation = self.sessions.create(name, document, user=user, disable_task_tracking=tracking)
        reply = self.attempt(creation, error)
        if reply is None:
            return
        made, new = reply
        assert new is (known is None)
        if known is None:
            self.model.create(made, values, user, tracking)
            self.run(self._register(user))
        else:
            assert (made.configs, made.revision, made.serial) == (known.configs, known.revision, known.serial)
            assert (made.user, made.disable_task_tracking) == (known.user, known.tracking)

    @precondition(lambda self: self.model.held)
    @rule(name=IDS, spelled=configs(), condition=st.sampled_from(("", "", "*", "right", "wrong")))
    def replace(self, name: str, spelled: Spelled, condition: str) -> None:
        values = spans(spelled.raw.decode())
        try:
            document = document_of(spelled.raw, LIMITS)
        except TooLarge:
            assert not fits(values, LIMITS)
            return
        # The size is looked at before the session is.
        error = self._expected(name, condition) if fits(values, LIMITS) else TooLarge
        written = self.attempt(self.sessions.replace(name, document, if_match=self._if_match(name, condition)), error)
        if written is not None:
            self.model.write(name, written, values)

    @precondition(lambda self: self.model.held)
    @rule(name=IDS, spelled=configs(nulls=True), condition=st.sampled_from(("", "", "*", "right", "wrong")))
    def patch(self, name: str, spelled: Spelled, condition: str) -> None:
        changed = spans(spelled.raw.decode())
        try:
            document = document_of(spelled.raw, LIMITS)
        except TooLarge:
            return
        error = self._expected(name, condition)
        held = self.model.held.get(name)
        values = merged(held.values if held else None, changed)
        if error is None and not fits(values, LIMITS):
            error = TooLarge
        written = self.attempt(self.sessions.patch(name, document, if_match=self._if_match(name, condition)), error)
        if written is not None:
            self.model.write(name, written, values)
            assert written.configs == self.model.held[name].configs

    @precondition(lambda self: self.model.held)
    @rule(name=IDS, condition=st.sampled_from(("", "", "*", "right", "wrong")))
    def delete(self, name: str, condition: str) -> None:
        error = self._expected(name, condition)
        self.attempt(self.sessions.delete(name, if_match=self._if_match(name, condition)), error)
        if error is None:
            del self.model.held[name]

    @precondition(lambda self: self.model.held)
    @rule(name=IDS, number=st.integers(10, 14))
    def copy(self, name: str, number: int) -> None:
        new = session_id(number)
        if new in self.model.held:
            self.run(self.sessions.delete(new))
            del self.model.held[new]
        copied = self.attempt(self.sessions.copy(name, new), None if name in self.model.held else NotFound)
        if copied is not None:
            source = self.model.held[name]
            self.model.create(copied, source.values, source.user, source.tracking)
            self.run(self._register(source.user))

    @rule(user=USERS)
    def delete_user(self, user: str) -> None:
        self.run(self.users.delete(user))
        self.model.users.pop(user, None)
        self.model.held = {name: held for name, held in self.model.held.items() if held.user != user}

    @rule(user=USERS)
    def register(self, user: str) -> None:
        self.run(self._register(user))

    @rule(spelled=configs())
    def a_spelling_is_read_as_it_was_meant(self, spelled: Spelled) -> None:
        # The model stands on `spans`: it must not err where the service does.
        found = spans(spelled.raw.decode())
        assert {key: exact(value.encode()) for key, value in found.items()} == spelled.value
        assert list(found) == list(spelled.value)

    @invariant()
    def the_keyspace_is_what_the_model_says(self) -> None:
        assert self.run(keyspace(self.link)) == self.model.keyspace()

    @invariant()
    def a_check_finds_nothing(self) -> None:
        assert self.run(self._findings()) == []

    @invariant()
    def users_have_as_many_sessions_as_the_model_says(self) -> None:
        for user in self.model.users:
            own = sum(held.user == user for held in self.model.held.values())
            assert self.run(self.users.count_sessions(user)) == own

    async def _findings(self) -> list[str]:
        found = []
        for partition in self.sessions.all_partitions:
            found += [str(finding) async for finding in Check(self.link, partition, LIMITS).findings()]
        return found

    def _expected(self, name: str, condition: str) -> type[Exception] | None:
        """The error of a write to session `name` under an If-Match `condition`."""
        if name not in self.model.held:
            return PreconditionFailed if condition else NotFound
        return PreconditionFailed if condition == "wrong" else None

    def _if_match(self, name: str, condition: str) -> str:
        held = self.model.held.get(name)
        created_at, revision = (held.created_at, held.revision) if held else (1, 1)
        if condition == "right":
            return f"1-1,{created_at}-{revision},x"
        return f"{created_at}-{revision + 1},{created_at}-" if condition == "wrong" else condition

    def teardown(self) -> None:
        """Delete every session: nothing but the partitions' state and the users may be left."""
        try:
            for name in list(self.model.held):
                self.run(self.sessions.delete(name))
            self.model.held = {}
            left = self.run(keyspace(self.link))
            assert left == self.model.keyspace()
            assert all(key.endswith((":state", ":users")) for key in left)
        finally:
            self.run(self.link.close())
            self.runner.close()


def try_out(connect: Callable[[], Link], *, partitions: int, block_size: int, examples: int, steps: int) -> None:
    """Run the machine on the store that `connect` opens."""
    run_state_machine_as_test(
        cast("type[RuleBasedStateMachine]", lambda: StoreMachine(connect, partitions, block_size)),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
