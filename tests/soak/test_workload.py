"""The model of the soak: which responses it accepts, and which it reports."""

import json
from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest

from service.configs import document
from service.configs.limits import Limits
from tests.soak import operations, values
from tests.soak.lists import Query
from tests.soak.memory import MIN_SAMPLES, Series
from tests.soak.ownership import OwnMembers, UserModel
from tests.soak.sessions import Operation, Session
from tests.soak.states import Span, State, lifetime, microseconds
from tests.support.http_client import Response, Violation
from tests.support.model import lines, merged

ID = "7d8d2b7a-52c4-4c9e-9f0e-3a4c1a2b5d6e"
CREATED, LATER = "2026-01-02T03:04:05.000006Z", "2026-01-02T03:04:06.000000Z"
SOON = Span(microseconds(LATER), microseconds(LATER) + 1000)


def written(**members: values.Json) -> operations.Spelled:
    return values.written(members, Random(1))


def response_for(state: State, *, status: int = 200, updated_at: str = LATER, expires_at: str | None = None) -> Response:
    """The response to a GET of a session in this state."""
    members = {
        "id": ID,
        "project_id": ID,
        "user_id": None,
        "disable_task_tracking": False,
        "created_at": CREATED,
        "updated_at": CREATED if state.revision == 1 else updated_at,
        "revision": state.revision,
        "expires_at": expires_at,
    }
    body = json.dumps({"code": 0, "msg": "", "data": members | {"configs": 0}}).replace('"configs": 0', '"configs": %s')
    etag = f'"{microseconds(CREATED)}-{state.revision}"'
    return Response(status, {"etag": etag}, (body % state.configs.decode()).encode())


def created(**members: values.Json) -> Session:
    """A session whose creation got its response."""
    session = Session(ID)
    body, new = operations.creation(ID, written(**members), None, tracking=False, ttl=None)
    session.take_response(operations.create(session, body, new, lambda: [0]), response_for(new, status=201), SOON)
    return session


def patched(session: Session, **members: values.Json) -> tuple[Operation, State]:
    """A PATCH, and the state that it leaves."""
    operation = operations.patch(session, written(**members), if_match="", ttl=None)
    ((_, after),) = operation.outcomes(session.states[0], SOON)
    assert after is not None
    return operation, after


def test_a_response_gives_the_model_the_times_of_a_session() -> None:
    (state,) = created(a="x").states
    assert state is not None
    assert (state.created_at, state.updated_at, state.etag) == (
        microseconds(CREATED), microseconds(CREATED), f"{microseconds(CREATED)}-1",
    )  # fmt: skip


def test_a_write_without_a_response_leaves_two_states_and_the_next_read_one() -> None:
    for happened in (False, True):
        session = created(a="x")
        operation, after = patched(session, a="y")
        before = session.states[0]
        session.take_no_response(operation, SOON.start, "503", uncertain=True)
        assert session.indeterminate_since is not None
        assert session.states == [before, after]
        assert before is not None
        session.take_response(operations.read(session), response_for(after if happened else before), SOON)
        assert [state and state.revision for state in session.states] == [2 if happened else 1]


def test_a_write_that_was_not_sent_leaves_one_state() -> None:
    session = created(a="x")
    operation, after = patched(session, a="y")
    session.take_no_response(operation, SOON.start, "503", uncertain=False)
    assert session.indeterminate_since is None
    with pytest.raises(Violation, match="503"):
        session.take_response(operations.read(session), response_for(after), SOON)


@pytest.mark.parametrize("wrong", ["lost", "value", "order", "revision", "gone", "etag"])
def test_a_response_that_no_acknowledged_write_explains_is_a_violation(wrong: str) -> None:
    session = created(a="x", b=Decimal("1.0"))
    before = session.states[0]
    operation, after = patched(session, a="y")
    body = json.dumps({"code": 0, "msg": "", "data": {"configs": 0}}).replace('"configs": 0', '"configs": %s')
    session.take_response(operation, Response(200, {"etag": f'"{after.etag}"'}, (body % after.configs.decode()).encode()), SOON)
    assert before is not None
    good, number = response_for(after), (after.values or {})["b"].encode()
    response = {
        "lost": response_for(before),
        "value": replace(good, raw=good.raw.replace(number, number + b"0")),
        "order": response_for(replace(after, values=dict(reversed([*(after.values or {}).items()])))),
        "revision": response_for(replace(after, revision=3)),
        "gone": Response(404, {}, b'{"code":404,"msg":"session not found"}'),
        "etag": replace(good, headers={"etag": f'"{microseconds(CREATED)}-1"'}),
    }[wrong]
    with pytest.raises(Violation, match=f"session {ID}\n") as raised:
        session.take_response(operations.read(session), response, SOON)
    assert "PATCH" in str(raised.value)
    session.take_response(operations.read(session), good, SOON)


def test_a_session_expires_at_the_end_of_its_lifetime_and_about_then_may_exist_or_not() -> None:
    state = State(ID, {}, expires=lifetime(2, Span(1_000_000, 1_500_000)))
    assert [*state.aged(Span(0, 2_999_999))] == [state]
    assert [*state.aged(Span(2_999_000, 3_000_000))] == [state, None]
    assert [*state.aged(Span(3_499_999, 3_600_000))] == [state, None]
    assert [*state.aged(Span(3_500_000, 3_600_000))] == [None]
    assert [*State(ID, {}).aged(Span(0, 2**60))] == [State(ID, {})]


def test_a_condition_decides_by_the_etag_of_the_model() -> None:
    session = created(a="x")
    (state,) = session.states
    assert state is not None
    for if_match, status in (("", 200), ("*", 200), (state.etag, 200), (f"{state.etag}1", 412)):
        operation = operations.delete(session, if_match=if_match)
        assert operation.outcomes(state, SOON) == [(status, None if status == 200 else state)]
        assert operation.outcomes(None, SOON) == [(412 if if_match else 404, None)]


def test_own_members_are_those_that_the_client_wrote_and_none_of_the_others() -> None:
    members = OwnMembers("the project's configs", ["mine"])
    members.change({"mine": "1"}, {"mine": "1", "theirs": "2"})
    with pytest.raises(Violation, match="the project's configs has"):
        members.check({"theirs": "2"})
    members.may_change({"mine": "null"})
    members.check({"mine": "1"})
    members.check({})
    members.indeterminate_since = None
    members.check({})
    with pytest.raises(Violation):
        members.check({"mine": "1"})


def test_a_user_exists_or_not_or_may_exist() -> None:
    user = UserModel("alice")
    with pytest.raises(Violation, match="alice"):
        user.check(exists=True, where="in the list")
    user.may_exist(exists=True)
    user.check(exists=True, where="in the list")
    user.check(exists=False, where="in the list")
    user.set_exists(exists=True)
    with pytest.raises(Violation, match="not in the list"):
        user.check(exists=False, where="in the list")


def test_the_model_has_random_configs_as_the_store_has_them() -> None:
    random = Random(5)
    for number in range(300):
        text, members = values.written(values.configs(random, number), random)
        stored = document.Document.build(document.parse(text.encode(), max_nesting=64), text.encode(), Limits())
        assert stored.configs == lines(members)
        assert merged(None, members) == {key: value for key, value in members.items() if value != "null"}


def test_filters_match_some_sessions_and_not_all() -> None:
    random = Random(6)
    sessions = [Session(ID, State(ID, values.written(values.configs(random, number), random)[1])) for number in range(50)]
    queries = [Query.choose(random, ["alice"], sessions) for _ in range(200)]
    counts = [
        sum(query.matches(state) for session in sessions for state in session.states if state)
        for query in queries
        if query.filter is not None and query.user is None
    ]
    assert len(counts) > 50
    assert sum(0 < count < 50 for count in counts) > len(counts) / 2


def test_memory_that_grows_is_distinguished_from_memory_that_does_not() -> None:
    def series(*samples: float) -> Series:
        return Series("worker", [*samples])

    count = 3 * MIN_SAMPLES
    assert series(*(40.0 + (number % 5) for number in range(count))).is_flat() is True
    # It fills up at first, and has a short peak.
    assert series(*(min(60.0, 40 + number) for number in range(count - 3)), 400, 400, 400).is_flat() is True
    assert series(*(40.0 + number * 0.1 for number in range(count))).is_flat() is False
    assert series(*(40.0 + number for number in range(MIN_SAMPLES - 1))).is_flat() is None
