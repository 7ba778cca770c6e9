"""ETag, If-None-Match and If-Match on one session."""

import re
from collections.abc import Callable
from itertools import product
from uuid import uuid4

import pytest

from service.http.api.routes import ROUTES, Route
from service.settings import API_PREFIX
from tests.support.http import Api, Response
from tests.support.raw_http import conversation, head

#: A request for one session with an expected status and headers.
Request = Callable[[Api, str, int, dict[str, str]], Response]

WRITES: dict[str, Request] = {
    "PUT": lambda api, session_id, status, headers: api.put(session_id, {"b": 2}, status, headers),
    "PATCH": lambda api, session_id, status, headers: api.patch(session_id, {"b": 2}, status, headers),
    "DELETE": lambda api, session_id, status, headers: api.delete(session_id, status, headers),
}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
MALFORMED = [
    "", "abc", '"abc', 'abc"', "'a'", '"a" "b"', '"a",b', "W/", 'w/"a"', '"a b"', "*,*", '*, "a"', ",", ", ,", ",*", '"a",*',
    '"a"x',
]  # fmt: skip


def test_a_state_has_the_same_strong_etag_in_every_response(api: Api) -> None:
    created = api.call("POST", "/session", {"configs": {"a": 1}}, 201)
    session_id = created.data["id"]
    etags = [created.etag]
    for write, configs in ((api.put, {"b": 1}), (api.patch, {}), (api.patch, {"c": 1})):
        response = write(session_id, configs)
        etags.append(response.etag)
        assert api.get(session_id).etag == response.etag
        assert api.call("GET", f"/session/{session_id}/configs").etag == response.etag
        assert api.call("POST", "/session", {"use_uuid": session_id}, 200).etag == response.etag
    assert len(set(etags)) == 4
    assert all(re.fullmatch(r'"[\x21\x23-\x7e]+"', etag) for etag in etags)


def test_lists_and_other_responses_have_no_etag(api: Api) -> None:
    session_id = api.new()
    for path in ("/session", "/user/ls", "/project/configs", "/ping"):
        assert api.call("GET", path).headers["ETag"] is None
    assert api.delete(session_id).headers["ETag"] is None
    assert api.get(session_id, 404).headers["ETag"] is None


@pytest.mark.parametrize("form", [
    "{0}", "W/{0}", "*", '"x", {0}', '{0},"x"', 'W/"x" , W/{0}', " {0} ", '"",{0}', ", {0}", "{0},", ',,{0} ,\t,"x"',
    '"\xe9",{0}',
])  # fmt: skip
def test_a_read_with_a_matching_if_none_match_gets_304(api: Api, form: str) -> None:
    session_id = api.new({"a": 1})
    etag = api.get(session_id).etag
    for path in ("", "/configs"):
        for method in ("GET", "HEAD"):
            response = api.send(method, f"/session/{session_id}{path}", headers={"If-None-Match": form.format(etag)})
            assert (response.status, response.etag, response.raw) == (304, etag, b"")


@pytest.mark.parametrize("form", ['"x"', 'W/"x"', '""', '"x","y"', '"*"', "W/{stale}", "{stale}"])
def test_a_read_without_a_matching_if_none_match_gets_200(api: Api, form: str) -> None:
    session_id = api.new({"a": 1})
    header = form.format(stale=api.get(session_id).etag)
    api.patch(session_id, {})
    assert api.get(session_id, headers={"If-None-Match": header}).data["revision"] == 2


@pytest.mark.parametrize("header", MALFORMED)
def test_a_malformed_condition_is_400(api: Api, header: str) -> None:
    session_id = api.new({"a": 1})
    before = api.get(session_id).raw
    # `Api.send` leaves out empty headers; the server strips the blank.
    sent = header or " "
    response = api.get(session_id, 400, {"If-None-Match": sent})
    assert response.msg == "If-None-Match must be * or a list of ETags in double quotes"
    for write in WRITES.values():
        assert write(api, session_id, 400, {"If-Match": sent}).msg == "If-Match must be * or a list of ETags in double quotes"
    assert api.get(session_id).raw == before


def test_if_none_match_on_a_missing_session_gets_404(api: Api) -> None:
    for header in ("*", '"x"'):
        api.get(str(uuid4()), 404, {"If-None-Match": header})


@writes
@pytest.mark.parametrize("form", ["{0}", "*", '"x", {0}', '{0},W/"x"', ' "x" ,{0} , "y"'])
def test_a_write_with_a_matching_if_match_succeeds(api: Api, write: Request, form: str) -> None:
    session_id = api.new({"a": 1})
    write(api, session_id, 200, {"If-Match": form.format(api.get(session_id).etag)})


@writes
@pytest.mark.parametrize("form", ['"x"', "W/{0}", "{stale}", '"x", "y"', '""', '"*"', "W/{0}, {stale}", '"{bare},{bare}"'])
def test_a_write_without_a_matching_if_match_gets_412_and_changes_nothing(api: Api, write: Request, form: str) -> None:
    session_id = api.new({"a": 1})
    stale = api.get(session_id).etag
    current = api.patch(session_id, {}).etag
    before = api.get(session_id).raw
    header = form.format(current, stale=stale, bare=current.strip('"'))
    assert write(api, session_id, 412, {"If-Match": header}).reason == "precondition_failed"
    assert api.get(session_id).raw == before
    assert api.matching({"a": 1}) == [session_id]


@writes
def test_if_match_over_several_lines_is_one_list(api: Api, write: Request) -> None:
    session_id = api.new({"a": 1})
    # The names differ only in case, so that a mapping can have both.
    write(api, session_id, 200, {"If-Match": '"x"', "if-match": api.get(session_id).etag})


@writes
def test_a_write_to_a_missing_session_gets_412_with_if_match_and_404_without(api: Api, other: Api, write: Request) -> None:
    for session_id in (str(uuid4()), other.new()):
        for header in ("*", '"x"', '"1-1"'):
            write(api, session_id, 412, {"If-Match": header})
        write(api, session_id, 404, {})


def test_a_later_session_with_the_same_id_never_repeats_an_etag(api: Api) -> None:
    session_id = api.new({"a": 1})
    etags = [api.get(session_id).etag]
    for _ in range(20):
        api.delete(session_id)
        etags.append(api.call("POST", "/session", {"use_uuid": session_id, "configs": {"a": 1}}, 201).etag)
        etags.append(api.patch(session_id, {"a": 1}).etag)
        api.patch(session_id, {"a": 2}, 412, {"If-Match": etags[-3]})
    assert len(set(etags)) == len(etags)


def test_with_if_match_only_the_first_of_two_writers_succeeds(api: Api) -> None:
    session_id = api.new({"n": 0})
    etag = api.get(session_id).etag
    assert api.patch(session_id, {"n": 1}, headers={"If-Match": etag}).etag != etag
    api.patch(session_id, {"n": 2}, 412, {"If-Match": etag})
    assert api.get(session_id).data["configs"] == {"n": 1}


def test_an_invalid_body_gets_400_whatever_the_condition(api: Api) -> None:
    session_id = api.new({"a": 1})
    api.call("PUT", f"/session/{session_id}/configs", {"configs": 1}, 400, {"If-Match": '"x"'})
    api.call("PUT", f"/session/{session_id}/configs", b"{", 400, {"If-Match": '"x"'})


# Both conditions together, on every route of one session.

REQUESTS: dict[str, Request] = WRITES | {
    "copy": lambda api, session_id, status, headers: api.call("POST", f"/session/{session_id}/copy", None, status, headers),
    "GET": lambda api, session_id, status, headers: api.get(session_id, status, headers),
}
every_request = pytest.mark.parametrize("name", REQUESTS)

#: Forms of a condition, by whether they name the state `{0}`. None: no such header.
FORMS = {
    None: None, "{0}": True, "*": True, '"1-1", {0}': True, ', {0} ,, "x",': True, '"x"': False, '"1-1"': False, '""': False,
    '"x", , "y"': False,
}  # fmt: skip


def expected(*, is_read: bool, if_match: bool | None, if_none_match: bool | None) -> int:
    """The status by RFC 9110, 13.2.2."""
    if if_match is False:
        return 412
    if if_none_match:
        return 304 if is_read else 412
    return 200


@every_request
@pytest.mark.parametrize(("if_match", "if_none_match"), list(product(FORMS, FORMS)))
def test_both_conditions_are_checked_in_the_order_of_the_rfc(
    api: Api, name: str, if_match: str | None, if_none_match: str | None
) -> None:
    created = api.call("POST", "/session", {"configs": {"a": 1}}, 201)
    session_id, etag = created.data["id"], created.etag
    forms = {"If-Match": if_match, "If-None-Match": if_none_match}
    headers = {name: form.format(etag) for name, form in forms.items() if form is not None}
    status = expected(is_read=name == "GET", if_match=FORMS[if_match], if_none_match=FORMS[if_none_match])
    response = REQUESTS[name](api, session_id, status, headers)
    if status == 412:
        header = "If-Match" if FORMS[if_match] is False else "If-None-Match"
        assert response.msg.startswith(f"{header} does not hold: ")
        assert api.ids() == [session_id]
        assert api.get(session_id).data == created.data


@every_request
@pytest.mark.parametrize("weak", ["W/{0}", '"x", W/{0}'])
def test_a_weak_etag_matches_for_if_none_match_only(api: Api, name: str, weak: str) -> None:
    session_id = api.new({"a": 1})
    header = weak.format(api.get(session_id).etag)
    REQUESTS[name](api, session_id, 412, {"If-Match": header})
    REQUESTS[name](api, session_id, 304 if name == "GET" else 412, {"If-None-Match": header})
    assert api.ids() == [session_id]


@every_request
@pytest.mark.parametrize("sent", MALFORMED)
@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_either_condition_if_malformed_gets_400_on_every_route(api: Api, name: str, header: str, sent: str) -> None:
    session_id = api.new({"a": 1})
    response = REQUESTS[name](api, session_id, 400, {header: sent or " "})
    assert response.msg == f"{header} must be * or a list of ETags in double quotes"
    assert api.ids() == [session_id]


@every_request
def test_on_a_missing_session_if_match_gets_412_and_if_none_match_alone_404_on_every_route(
    api: Api, other: Api, name: str
) -> None:
    for session_id in (str(uuid4()), other.new()):
        for if_match, if_none_match in product(("", "*", '"x"', '"1-1"'), repeat=2):
            headers = {"If-Match": if_match, "If-None-Match": if_none_match}
            REQUESTS[name](api, session_id, 412 if if_match else 404, {name: text for name, text in headers.items() if text})
    assert api.ids() == []


def test_conditions_on_a_session_with_a_ttl_work_like_on_any_other(api: Api) -> None:
    session_id = api.create(ttl=1000)["id"]
    etag = api.get(session_id).etag
    for name in ("copy", "GET", "PUT", "PATCH", "DELETE"):
        REQUESTS[name](api, session_id, 412, {"If-Match": '"1-1"'})
        REQUESTS[name](api, session_id, 304 if name == "GET" else 412, {"If-None-Match": etag})
    assert api.ids() == [session_id]


def test_create_with_if_none_match_star_gets_412_if_the_id_is_in_use(api: Api, other: Api) -> None:
    session_id, header = str(uuid4()), {"If-None-Match": "*"}
    other.call("POST", "/session", {"use_uuid": session_id}, 201)
    body = {"use_uuid": session_id.upper(), "configs": {"a": 1}}
    before = api.call("POST", "/session", body, 201, header).data
    refused = api.call("POST", "/session", body | {"configs": {"a": 2}, "user": "loser"}, 412, header)
    assert refused.msg.startswith("If-None-Match does not hold: ")
    assert api.get(session_id).data == before
    assert api.call("GET", "/user/ls").data["items"] == []
    api.call("POST", "/session", body, 200)
    api.delete(session_id)
    api.call("POST", "/session", body, 201, header)
    # Without use_uuid the id is new, so the condition always holds.
    api.call("POST", "/session", {}, 201, header)
    api.call("POST", "/session", None, 201, header)


@pytest.mark.parametrize("value", ['"1-1"', '"x"', 'W/"x"', '"x", "y"'])
def test_create_accepts_no_other_if_none_match(api: Api, value: str) -> None:
    response = api.call("POST", "/session", {"use_uuid": str(uuid4())}, 400, {"If-None-Match": value})
    assert response.msg == "If-None-Match must be * on POST /session"
    assert api.ids() == []


BELOW_API = [route for route in ROUTES if route.path.startswith(API_PREFIX)]
BOTH = {"If-Match", "If-None-Match"}
REFUSING = [(route, header) for route in BELOW_API for header in sorted(BOTH - route.endpoint.conditions)]


def send(api: Api, route: Route, headers: dict[str, str]) -> Response:
    """A valid request on a route, with more headers."""
    path = route.path.removeprefix(API_PREFIX).format(session_id=api.new({"a": 1}, user="alice"), identifier="alice")
    body = None if route.operation.body is None else b'{"configs":{"b":2}}'
    return api.send(route.method, path, body, headers)


def unchanged(api: Api) -> bool:
    """Whether the one session of `send`, its user and the project are as they were."""
    revisions = [session["revision"] for session in api.page(user="alice")["items"]]
    return (revisions, len(api.ids()), api.call("GET", "/project/configs").data) == ([1], 1, {})


def test_only_routes_of_one_session_accept_conditions() -> None:
    accepted = {route.operation.id: route.endpoint.conditions for route in ROUTES if route.endpoint.conditions}
    session_routes = ("get_session", "delete_session", "get_configs", "replace_configs", "patch_configs", "copy_session")
    assert accepted == {"create_session": {"If-None-Match"}} | dict.fromkeys(session_routes, BOTH)


@pytest.mark.parametrize(("route", "header"), REFUSING, ids=[f"{route.operation.id}-{header}" for route, header in REFUSING])
@pytest.mark.parametrize("value", ["*", '"1-1"', "nonsense"])
def test_an_unsupported_condition_gets_400_and_changes_nothing(api: Api, route: Route, header: str, value: str) -> None:
    response = send(api, route, {header: value})
    assert (response.status, response.msg) == (400, f"this path does not support {header} with this method")
    assert unchanged(api)


@pytest.mark.parametrize("route", BELOW_API, ids=lambda route: route.operation.id)
@pytest.mark.parametrize("value", ["Sat, 29 Oct 1994 19:43:31 GMT", "nonsense"])
def test_if_unmodified_since_gets_400_on_a_write_and_if_modified_since_is_ignored(api: Api, route: Route, value: str) -> None:
    response = send(api, route, {"If-Unmodified-Since": value})
    if route.method == "GET":
        assert response.status == 200
    else:
        assert (response.status, response.msg) == (400, "If-Unmodified-Since is not supported; send If-Match with an ETag")
        assert unchanged(api)
    assert send(api, route, {"If-Modified-Since": value, "If-Range": value}).status in (200, 201)


def test_paths_outside_the_api_ignore_conditions(api: Api) -> None:
    for line in ("GET /health HTTP/1.1", "GET /ready HTTP/1.1"):
        headers = ("If-Match: x", "If-None-Match: *", "If-Unmodified-Since: y")
        assert [response.status for response in conversation(api, head(api, line, *headers))] == [200]
