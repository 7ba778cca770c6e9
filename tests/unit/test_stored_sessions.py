"""A list shows the stored fields of a session without parsing the session: the same bytes, and the same sessions as damaged."""

from hypothesis import example, given
from hypothesis import strategies as st

from service.configs.ttl import LAST_MOMENT
from service.http.api.representations import session_json, stored_session_json
from service.store.record import FIELDS, StoredSession, session_of, user_field

PROJECT_ID = "5b1d8a4e-0000-4000-8000-000000000001"
ID = b"0190d1f2-5a3b-4c6d-8e7f-001122334455"

#: What a manual edit may leave in any field.
DAMAGED = st.one_of(
    st.sampled_from(
        [b"", b" 5 ", b"+5", b"-5", b"007", b"1_0", b"1.0", b"1e3", b"x", b"\xff", b"5" * 5000, b'"a', b"[]", b"null"]
    ),
    st.binary(max_size=20),
)
NUMBERS = st.integers(1, 2**53).map(lambda number: b"%d" % number)
TIMES = st.one_of(st.integers(0, LAST_MOMENT + 2), st.integers(LAST_MOMENT - 2, LAST_MOMENT + 2)).map(lambda time: b"%d" % time)


def field(usual: st.SearchStrategy[bytes], *, optional: bool = False) -> st.SearchStrategy[bytes | None]:
    """Mostly a usual value, sometimes none, and sometimes a damaged one."""
    return st.one_of(usual, usual, st.none() if optional else usual, st.none(), DAMAGED)


@st.composite
def stored_sessions(draw: st.DrawFn) -> StoredSession:
    """A session as the script replies it: any field but the configs may be missing or damaged."""
    created_at, serial = draw(field(TIMES)), draw(field(NUMBERS))
    score = serial if serial is not None and draw(st.booleans()) else draw(st.one_of(NUMBERS, DAMAGED))
    fields = [
        draw(st.sampled_from([b"null", b"{}", b'{\n"a":1\n}', b"broken"])),
        draw(field(NUMBERS)),
        draw(field(st.text(max_size=5).map(lambda user: user_field(user).encode()), optional=True)),
        created_at,
        created_at if draw(st.booleans()) else draw(field(TIMES)),
        draw(st.sampled_from([None, b"1", b"0", b"", b"true"])),
        serial,
        draw(field(TIMES, optional=True)),
    ]
    return StoredSession._make([*fields, score, draw(st.one_of(st.just(ID), st.binary(max_size=40)))])


USUAL = StoredSession(b"{}", b"1", None, b"1700000000000137", b"1700000000000137", None, b"17", None, b"17", ID)


@given(stored_sessions())
@example(USUAL)
@example(USUAL._replace(revision=b" +0_7 ", serial=b"017", created_at=b"00001", updated_at=b"1"))
@example(USUAL._replace(user=b' "a" ', raw_id=b"\xff\xfeid", expires_at=b" 5"))
@example(USUAL._replace(serial=b"1.5", score=b"1.5"))
@example(USUAL._replace(serial=b"inf", score=b"inf"))
def test_an_intact_stored_session_is_shown_as_the_parsed_one(stored: StoredSession) -> None:
    parsed = session_of(stored.raw_id.decode(errors="replace"), stored[: len(FIELDS)])
    assert stored.is_intact == (parsed is not None and b"%d" % parsed.serial == stored.score)
    if stored.is_intact:
        assert parsed is not None
        assert stored.parsed() == parsed
        assert stored.id == parsed.id
        assert stored_session_json(stored, stored.configs, PROJECT_ID.encode()) == session_json(parsed, PROJECT_ID)


def test_the_first_fields_of_a_stored_session_are_those_of_a_hash() -> None:
    assert StoredSession._fields[: len(FIELDS)] == FIELDS
