"""ETag, If-None-Match and If-Match on one session."""

import re
from collections.abc import Callable
from uuid import uuid4

import pytest

from tests.api import Answer, Api

WRITES: dict[str, Callable[[Api, str, int, dict[str, str]], Answer]] = {
    "PUT": lambda api, session_id, status, headers: api.put(session_id, {"b": 2}, status, headers),
    "PATCH": lambda api, session_id, status, headers: api.patch(session_id, {"b": 2}, status, headers),
    "DELETE": lambda api, session_id, status, headers: api.delete(session_id, status, headers),
}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
MALFORMED = [
    "", "abc", '"abc', 'abc"', "'a'", '"a" "b"', '"a",b', '"a",,"b"', "W/", 'w/"a"', '"a b"', "*,*", '*, "a"', ",", '"a"x',
]  # fmt: skip


def test_the_same_state_has_the_same_strong_etag_wherever_it_is_answered(api: Api) -> None:
    created = api.call("POST", "/session", {"configs": {"a": 1}}, 201)
    session_id = created.data["id"]
    seen = [created.etag]
    for write, configs in ((api.put, {"b": 1}), (api.patch, {}), (api.patch, {"c": 1})):
        answer = write(session_id, configs)
        seen.append(answer.etag)
        assert api.get(session_id).etag == answer.etag
        assert api.call("GET", f"/session/{session_id}/configs").etag == answer.etag
        assert api.call("POST", "/session", {"use_uuid": session_id}, 200).etag == answer.etag
    assert len(set(seen)) == 4
    assert all(re.fullmatch(r'"[\x21\x23-\x7e]+"', etag) for etag in seen)


def test_lists_and_other_answers_have_no_etag(api: Api) -> None:
    session_id = api.new()
    for path in ("/session", "/user/ls", "/project/configs", "/ping"):
        assert api.call("GET", path).headers["ETag"] is None
    assert api.delete(session_id).headers["ETag"] is None
    assert api.get(session_id, 404).headers["ETag"] is None


@pytest.mark.parametrize("form", ["{0}", "W/{0}", "*", '"x", {0}', '{0},"x"', 'W/"x" , W/{0}', " {0} ", '"",{0}'])
def test_if_none_match_that_names_the_state_is_304(api: Api, form: str) -> None:
    session_id = api.new({"a": 1})
    etag = api.get(session_id).etag
    for path in ("", "/configs"):
        for method in ("GET", "HEAD"):
            answer = api.send(method, f"/session/{session_id}{path}", headers={"If-None-Match": form.format(etag)})
            assert (answer.status, answer.etag, answer.raw) == (304, etag, b"")


@pytest.mark.parametrize("form", ['"x"', 'W/"x"', '""', '"x","y"', '"*"', "W/{stale}", "{stale}"])
def test_if_none_match_that_does_not_is_200(api: Api, form: str) -> None:
    session_id = api.new({"a": 1})
    header = form.format(stale=api.get(session_id).etag)
    api.patch(session_id, {})
    assert api.get(session_id, headers={"If-None-Match": header}).data["revision"] == 2


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_condition_is_400(api: Api, header: str) -> None:
    session_id = api.new({"a": 1})
    before = api.get(session_id).raw
    # `Api.send` leaves out what is empty; a blank is stripped on the way.
    sent = header or " "
    answer = api.get(session_id, 400, {"If-None-Match": sent})
    assert answer.msg == "If-None-Match must be * or ETags in double quotes"
    for write in WRITES.values():
        assert write(api, session_id, 400, {"If-Match": sent}).msg == "If-Match must be * or ETags in double quotes"
    assert api.get(session_id).raw == before


def test_if_none_match_on_a_session_that_is_not_there_is_404(api: Api) -> None:
    for header in ("*", '"x"'):
        api.get(str(uuid4()), 404, {"If-None-Match": header})


@writes
@pytest.mark.parametrize("form", ["{0}", "*", '"x", {0}', '{0},W/"x"', ' "x" ,{0} , "y"'])
def test_if_match_that_holds_lets_the_write_through(
    api: Api, write: Callable[[Api, str, int, dict[str, str]], Answer], form: str
) -> None:
    session_id = api.new({"a": 1})
    write(api, session_id, 200, {"If-Match": form.format(api.get(session_id).etag)})


@writes
@pytest.mark.parametrize("form", ['"x"', "W/{0}", "{stale}", '"x", "y"', '""', '"*"', "W/{0}, {stale}", '"{bare},{bare}"'])
def test_if_match_that_does_not_hold_is_412_and_changes_nothing(
    api: Api, write: Callable[[Api, str, int, dict[str, str]], Answer], form: str
) -> None:
    session_id = api.new({"a": 1})
    stale = api.get(session_id).etag
    current = api.patch(session_id, {}).etag
    before = api.get(session_id).raw
    header = form.format(current, stale=stale, bare=current.strip('"'))
    assert write(api, session_id, 412, {"If-Match": header}).reason == "precondition_failed"
    assert api.get(session_id).raw == before
    assert api.matching({"a": 1}) == [session_id]


@writes
def test_if_match_over_several_lines_is_one_list(api: Api, write: Callable[[Api, str, int, dict[str, str]], Answer]) -> None:
    session_id = api.new({"a": 1})
    # Header names differ in case only, so that a mapping can carry both.
    write(api, session_id, 200, {"If-Match": '"x"', "if-match": api.get(session_id).etag})


@writes
def test_without_a_session_if_match_is_412_and_without_if_match_404(
    api: Api, other: Api, write: Callable[[Api, str, int, dict[str, str]], Answer]
) -> None:
    for session_id in (str(uuid4()), other.new()):
        for header in ("*", '"x"', '"1-1"'):
            write(api, session_id, 412, {"If-Match": header})
        write(api, session_id, 404, {})


def test_a_later_session_with_the_same_id_never_repeats_an_etag(api: Api) -> None:
    session_id = api.new({"a": 1})
    seen = [api.get(session_id).etag]
    for _ in range(20):
        api.delete(session_id)
        seen.append(api.call("POST", "/session", {"use_uuid": session_id, "configs": {"a": 1}}, 201).etag)
        seen.append(api.patch(session_id, {"a": 1}).etag)
        api.patch(session_id, {"a": 2}, 412, {"If-Match": seen[-3]})
    assert len(set(seen)) == len(seen)


def test_if_match_lets_only_the_first_of_two_writers_through(api: Api) -> None:
    session_id = api.new({"n": 0})
    etag = api.get(session_id).etag
    assert api.patch(session_id, {"n": 1}, headers={"If-Match": etag}).etag != etag
    api.patch(session_id, {"n": 2}, 412, {"If-Match": etag})
    assert api.get(session_id).data["configs"] == {"n": 1}


def test_a_bad_body_is_400_whatever_the_condition(api: Api) -> None:
    session_id = api.new({"a": 1})
    api.call("PUT", f"/session/{session_id}/configs", {"configs": 1}, 400, {"If-Match": '"x"'})
    api.call("PUT", f"/session/{session_id}/configs", b"{", 400, {"If-Match": '"x"'})
