"""Any JSON through create, PUT, PATCH, copy and delete, compared with a model of exact values and raw members."""

import json
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.http import Api, Response
from tests.support.strategies import Spelled, keys, known_documents, objects, spell, spelled_objects, values

EXACT = json.JSONDecoder(parse_float=Decimal)

#: The server is started once, and all examples share its project.
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(one: object, other: object) -> bool:
    """Whether digits and order of keys are equal, too; 1 is not 1.0, 0.0 is not -0.0, and True is not 1."""
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Decimal):
        return isinstance(other, Decimal) and one.as_tuple() == other.as_tuple()
    return type(one) is type(other) and one == other


def exact(raw: bytes) -> Any:  # noqa: ANN401 - JSON is any value
    return EXACT.decode(raw.decode())


def members(raw: bytes) -> dict[str, bytes]:
    """The bytes of each member, from the form with one member per line in which configs are returned."""
    if raw in (b"{}", b"null"):
        return {}
    lines = raw.removeprefix(b"{\n").removesuffix(b"\n}").split(b",\n")
    raw_values = {}
    for line in lines:
        key, end = EXACT.raw_decode(line.decode())
        raw_values[key] = line.decode()[end + 1 :].encode()
    return raw_values


@dataclass
class Model:
    """The expected state of one session: the values as Python parses them, and the bytes that members must keep."""

    session_id: str
    configs: dict[str, Any] | None
    kept: dict[str, bytes] = field(default_factory=dict)
    revision: int = 1

    def check(self, response: Response, *, named: set[str]) -> None:
        """Compare a response with the model; only members in `named` may have new bytes."""
        raw = response.raw_configs
        assert same(exact(raw), self.configs)
        now = members(raw)
        assert {key: now[key] for key in now if key not in named} == {k: v for k, v in self.kept.items() if k not in named}
        self.kept = now


def send(api: Api, method: str, path: str, configs: str) -> Response:
    response = api.send(method, path, f'{{"configs":{configs}}}'.encode())
    assert response.status in (200, 201), response.raw
    return response


def create(api: Api, text: str) -> Model:
    response = send(api, "POST", "/session", text)
    model = Model(response.data["id"], EXACT.decode(text))
    model.check(response, named=set(model.configs or {}))
    return model


def put(api: Api, model: Model, text: str) -> None:
    send(api, "PUT", f"/session/{model.session_id}/configs", text)
    configs = EXACT.decode(text)
    model.configs, model.kept, model.revision = configs, {}, model.revision + 1
    model.check(api.get(model.session_id), named=set(configs))


def patch(api: Api, model: Model, text: str) -> None:
    response = send(api, "PATCH", f"/session/{model.session_id}/configs", text)
    changes = EXACT.decode(text)
    merged = (model.configs or {}) | changes
    model.configs = {key: value for key, value in merged.items() if key not in changes or value is not None}
    model.kept = {key: value for key, value in model.kept.items() if key in model.configs}
    model.revision += 1
    model.check(response, named=set(changes))


def copy(api: Api, model: Model) -> Model:
    copied = api.call("POST", f"/session/{model.session_id}/copy").data["new_session_id"]
    twin = Model(copied, model.configs, dict(model.kept))
    twin.check(api.get(copied), named=set())
    return twin


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "patch", "patch", "patch", "copy", "recreate"]),
        objects(),
        # Changes to keys that probably exist, so that members are replaced and removed too.
        st.dictionaries(st.integers(0, 5), st.none() | values(), max_size=4),
    ),
    min_size=1,
    max_size=6,
)  # fmt: skip


@QUICK
@given(start=st.none() | objects(), steps=STEPS, seed=st.integers(0, 2**32))
def test_any_sequence_of_writes_keeps_values_order_and_unnamed_bytes(
    api: Api, start: dict[str, Any] | None, steps: list[tuple[str, dict[str, Any], dict[int, Any]]], seed: int
) -> None:
    random = Random(seed)
    model = create(api, spell(start, random))
    sources: list[Model] = []
    for step, configs, changed in steps:
        keys_now = list(model.configs or {})
        if step == "copy":
            sources.append(model)
            model = copy(api, model)
        elif step == "recreate":
            api.delete(model.session_id)
            model = create(api, spell(configs, random))
        elif step == "patch":
            changes = {keys_now[index]: value for index, value in changed.items() if index < len(keys_now)} | configs
            patch(api, model, spell(changes, random))
        else:
            put(api, model, spell(configs, random))
    for each in [model, *sources]:
        if api.send("GET", f"/session/{each.session_id}").status == 200:
            response = api.get(each.session_id)
            each.check(response, named=set())
            assert response.data["revision"] == each.revision


@QUICK
@given(sent=spelled_objects())
def test_any_spelling_of_an_object_is_returned_with_its_values(api: Api, sent: Spelled) -> None:
    response = api.send("POST", "/session", b'{"configs":%b}' % sent.raw)
    actual = exact(response.raw_configs)
    assert same(actual, exact(sent.raw))
    # Also equal to the generated value, which never went through a parser.
    assert actual == sent.value


@QUICK
@given(configs=st.dictionaries(keys(), values(), min_size=1, max_size=4), index=st.integers(0, 3))
def test_a_session_is_found_by_each_of_its_members(api: Api, configs: dict[str, Any], index: int) -> None:
    session_id = send(api, "POST", "/session", spell(configs)).data["id"]
    key = list(configs)[index % len(configs)]
    page = api.call("GET", "/session", query={"filter_by_configs": spell({key: configs[key]}), "time_desc": "true", "limit": 1})
    assert [session["id"] for session in page.data["items"]] == [session_id]


def test_known_and_real_documents_are_returned_exactly(api: Api) -> None:
    for _, raw in known_documents():
        response = api.send("POST", "/session", b'{"configs":%b}' % raw)
        assert same(exact(response.raw_configs), exact(raw))
        session_id = response.data["id"]
        patched = api.call("PATCH", f"/session/{session_id}/configs", b'{"configs":{"one more":1.0}}')
        assert members(patched.raw_configs) == members(response.raw_configs) | {"one more": b"1.0"}
        assert api.get(session_id).raw_configs == patched.raw_configs
