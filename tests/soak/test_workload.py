"""The soak's pure parts: what it takes for right, and what it does not."""

import json
from dataclasses import replace
from random import Random

import pytest

from service.configs import document
from service.configs.limits import Limits
from tests.soak import deeds, values
from tests.soak.differences import Difference
from tests.soak.lists import Query
from tests.soak.memory import LEAST, Series
from tests.soak.owned import OwnUser, Share
from tests.soak.sessions import Deed, Session
from tests.soak.states import Span, State, lifetime, microseconds
from tests.soak.values import Number
from tests.soak.wire import Response

ID = "7d8d2b7a-52c4-4c9e-9f0e-3a4c1a2b5d6e"
CREATED, LATER = "2026-01-02T03:04:05.000006Z", "2026-01-02T03:04:06.000000Z"
SOON = Span(microseconds(LATER), microseconds(LATER) + 1000)
BLANK = Random(1)


def written(**members: values.Json) -> deeds.Written:
    return values.written(members, BLANK)


def shown(state: State, *, status: int = 200, updated_at: str = LATER, expires_at: str | None = None) -> Response:
    """The answer that shows a session in this state."""
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
    """A session that was created and answered."""
    session = Session(ID)
    body, new = deeds.creation(ID, written(**members), None, tracking=False, ttl=None)
    session.answered(deeds.create(session, body, new, lambda: [0]), shown(new, status=201), SOON)
    return session


def patched(session: Session, **members: values.Json) -> tuple[Deed, State]:
    """A PATCH, and the state that it leaves of the one that is known."""
    deed = deeds.patch(session, written(**members), if_match="", ttl=None)
    ((_, after),) = deed.outcomes(session.states[0], SOON)
    assert after is not None
    return deed, after


def test_an_answer_tells_what_the_model_could_not_know() -> None:
    (state,) = created(a="x").states
    assert state is not None
    assert (state.created_at, state.updated_at, state.etag) == (
        microseconds(CREATED), microseconds(CREATED), f"{microseconds(CREATED)}-1",
    )  # fmt: skip


def test_a_write_without_an_answer_leaves_two_states_and_the_next_read_one() -> None:
    for happened in (False, True):
        session = created(a="x")
        deed, after = patched(session, a="y")
        before = session.states[0]
        session.unanswered(deed, SOON.start, "503", uncertain=True)
        assert session.doubted is not None
        assert session.states == [before, after]
        assert before is not None
        session.answered(deeds.read(session), shown(after if happened else before), SOON)
        assert [state and state.revision for state in session.states] == [2 if happened else 1]


def test_a_write_that_was_surely_not_done_leaves_one_state() -> None:
    session = created(a="x")
    deed, after = patched(session, a="y")
    session.unanswered(deed, SOON.start, "503", uncertain=False)
    assert session.doubted is None
    with pytest.raises(Difference, match="503"):
        session.answered(deeds.read(session), shown(after), SOON)


@pytest.mark.parametrize("wrong", ["lost", "value", "order", "revision", "gone", "etag"])
def test_what_does_not_come_from_an_acknowledged_write_is_a_difference(wrong: str) -> None:
    session = created(a="x", b=Number("1.0"))
    before = session.states[0]
    deed, after = patched(session, a="y")
    body = json.dumps({"code": 0, "msg": "", "data": {"configs": 0}}).replace('"configs": 0', '"configs": %s')
    session.answered(deed, Response(200, {"etag": f'"{after.etag}"'}, (body % after.configs.decode()).encode()), SOON)
    assert before is not None
    good = shown(after)
    answer = {
        "lost": shown(before),
        "value": replace(good, body=good.body.replace(b"1.0", b"1.00")),
        "order": shown(replace(after, values=dict(reversed([*(after.values or {}).items()])))),
        "revision": shown(replace(after, revision=3)),
        "gone": Response(404, {}, b'{"code":404,"msg":"session not found"}'),
        "etag": replace(good, headers={"etag": f'"{microseconds(CREATED)}-1"'}),
    }[wrong]
    with pytest.raises(Difference, match=f"session {ID}\n") as raised:
        session.answered(deeds.read(session), answer, SOON)
    assert "PATCH" in str(raised.value)
    session.answered(deeds.read(session), good, SOON)


def test_a_session_is_gone_when_its_lifetime_is_over_and_maybe_about_then() -> None:
    state = State(ID, {}, dies=lifetime(2, Span(1_000_000, 1_500_000)))
    assert [*state.aged(Span(0, 2_999_999))] == [state]
    assert [*state.aged(Span(2_999_000, 3_000_000))] == [state, None]
    assert [*state.aged(Span(3_499_999, 3_600_000))] == [state, None]
    assert [*state.aged(Span(3_500_000, 3_600_000))] == [None]
    assert [*State(ID, {}).aged(Span(0, 2**60))] == [State(ID, {})]


def test_a_condition_decides_by_the_etag_that_is_known() -> None:
    session = created(a="x")
    (state,) = session.states
    assert state is not None
    for if_match, status in (("", 200), ("*", 200), (state.etag, 200), (f"{state.etag}1", 412)):
        deed = deeds.delete(session, if_match=if_match)
        assert deed.outcomes(state, SOON) == [(status, None if status == 200 else state)]
        assert deed.outcomes(None, SOON) == [(412 if if_match else 404, None)]


def test_a_share_keeps_what_its_client_wrote_and_nothing_of_the_others() -> None:
    share = Share("the project's configs", ["mine"])
    share.changed({"mine": "1"}, {"mine": "1", "theirs": "2"})
    with pytest.raises(Difference, match="the project's configs has"):
        share.shown({"theirs": "2"})
    share.may_change({"mine": "null"})
    share.shown({"mine": "1"})
    share.shown({})
    share.doubted = None
    share.shown({})
    with pytest.raises(Difference):
        share.shown({"mine": "1"})


def test_a_user_is_known_not_known_or_in_doubt() -> None:
    user = OwnUser("alice")
    with pytest.raises(Difference, match="alice"):
        user.hold(known=True, where="in the list")
    user.may_be(known=True)
    user.hold(known=True, where="in the list")
    user.hold(known=False, where="in the list")
    user.is_now(known=True)
    with pytest.raises(Difference, match="not in the list"):
        user.hold(known=False, where="in the list")


def test_random_configs_are_kept_as_the_store_keeps_them() -> None:
    random = Random(5)
    for number in range(300):
        text, members = values.written(values.configs(random, number), random)
        stored = document.Document.build(document.parse(text.encode(), max_nesting=64), text.encode(), Limits())
        assert stored.configs == values.lines(members)
        assert values.merged(None, members) == {key: value for key, value in members.items() if value != "null"}


def test_filters_find_some_sessions_and_not_all() -> None:
    random = Random(6)
    sessions = [Session(ID, State(ID, values.written(values.configs(random, number), random)[1])) for number in range(50)]
    queries = [Query.choose(random, ["alice"], sessions) for _ in range(200)]
    found = [
        sum(query.finds(state) for session in sessions for state in session.states if state)
        for query in queries
        if query.filter is not None and query.user is None
    ]
    assert len(found) > 50
    assert sum(0 < count < 50 for count in found) > len(found) / 2


def test_memory_that_grows_is_told_from_memory_that_does_not() -> None:
    def series(*samples: float) -> Series:
        return Series("worker", [*samples])

    count = 3 * LEAST
    assert series(*(40.0 + (number % 5) for number in range(count))).is_flat() is True
    # It fills up at first, and takes more for a moment.
    assert series(*(min(60.0, 40 + number) for number in range(count - 3)), 400, 400, 400).is_flat() is True
    assert series(*(40.0 + number * 0.1 for number in range(count))).is_flat() is False
    assert series(*(40.0 + number for number in range(LEAST - 1))).is_flat() is None
