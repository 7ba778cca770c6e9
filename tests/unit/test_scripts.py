"""The Lua scripts as files: headers, includes, and how Python calls them. No Redis."""

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import pytest

from service.configs.limits import Limits
from service.errors import ServiceError
from service.store import script_calls, scripts
from service.store.keys import Owner
from service.store.script_calls import StatusReply
from service.store.scripts import KeysAndArguments, ScriptFunction, load, script

LUA = Path(str(resources.files("service.store"))) / "lua"
NAMES = sorted(path.stem for path in LUA.glob("*.lua"))
ALL_FILES = sorted(LUA.rglob("*.lua"))

#: The last argument of these stands for several.
MANY = {
    "adopt_session": "fields",
    "find_candidates": "required_terms",
    "import_sessions": "imported",
    "import_users": "imported",
    "patch": "members",
    "patch_project": "members",
    "verify_session": "suspects",
    "verify_set": "serials",
}


def pretend(monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """Let the loader read these files, and no others; `include_x` stands for `include/x.lua`."""
    paths = {name.replace("include_", "include/") + ".lua": source for name, source in files.items()}

    def read(path: str) -> str:
        if path not in paths:
            raise FileNotFoundError(path)
        return paths[path]

    monkeypatch.setattr(scripts, "_read", read)


def body(name: str) -> str:
    """A script without its comments."""
    return re.sub(r"--.*", "", (LUA / f"{name}.lua").read_text(encoding="utf-8"))


def used(kind: str, name: str) -> set[int]:
    """The indexes with which a script reads KEYS or ARGV, including the start of a loop over the rest."""
    source = body(name)
    indexes = {int(index) for index in re.findall(kind + r"\[(\d+)\]", source)}
    if kind == "ARGV":
        indexes |= {int(first) for first in re.findall(r"for i = (\d+), #ARGV\b", source)}
    return indexes


def test_there_are_scripts_to_test() -> None:
    assert {"create", "replace", "patch", "delete", "find_candidates"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_loads_and_has_a_sha(name: str) -> None:
    loaded = load(name)
    assert loaded.name == name
    assert re.fullmatch("[0-9a-f]{40}", loaded.sha)
    assert "-- include:" not in loaded.source


@pytest.mark.parametrize("name", NAMES)
def test_a_header_says_what_the_script_does_and_what_it_returns(name: str) -> None:
    header = re.match(r"(?:--.*\n)+", (LUA / f"{name}.lua").read_text(encoding="utf-8"))
    assert header is not None
    assert header[0].startswith(f"-- {name}: ")
    assert re.search(r"^-- returns ", header[0], re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_exactly_the_keys_and_arguments_that_its_header_names(name: str) -> None:
    loaded = load(name)
    assert used("KEYS", name) == set(range(1, len(loaded.keys) + 1))
    assert used("ARGV", name) == set(range(1, len(loaded.arguments) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_only_a_last_argument_that_stands_for_many_is_looped_over(name: str) -> None:
    loops = {int(first) for first in re.findall(r"for i = (\d+), #ARGV\b", body(name))}
    arguments = load(name).arguments
    assert loops == ({len(arguments)} if name in MANY else set())
    assert MANY.get(name) in (None, arguments[-1])


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.stem)
def test_an_include_reads_neither_keys_nor_arguments(path: Path) -> None:
    if path.parent.name == "include":
        assert not re.search(r"\b(KEYS|ARGV)\b", path.read_text(encoding="utf-8"))
    else:
        assert re.search(r"\bKEYS\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_script_has_a_typed_function(name: str) -> None:
    function = getattr(script_calls, name)
    assert isinstance(function, ScriptFunction)
    assert function.script == load(name)


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda *, session, prefix, ttl: ((session,), (ttl, prefix)), id="arguments in another order"),
        pytest.param(lambda *, session, prefix, ttl: ((prefix,), (session, ttl)), id="a key among the arguments"),
        pytest.param(lambda *, session, prefix: ((session,), (prefix,)), id="an argument less"),
        pytest.param(lambda *, session, prefix, ttl, more: ((session,), (prefix, ttl, more)), id="an argument more"),
        pytest.param(lambda *, session, prefix, lifetime: ((session,), (prefix, lifetime)), id="another name"),
        pytest.param(lambda *, session, prefix, ttl: ((session,), (prefix, ttl, ttl)), id="an argument twice"),
        pytest.param(lambda *, prefix, ttl: ((), (prefix, ttl)), id="a key less"),
    ],
)
def test_a_function_that_does_not_follow_the_header_is_refused(
    monkeypatch: pytest.MonkeyPatch, build: Callable[..., KeysAndArguments]
) -> None:
    pretend(monkeypatch, main="-- KEYS[1] session\n-- ARGV[1] prefix\n-- ARGV[2] ttl\nreturn 1\n")
    build.__name__ = "main"
    with pytest.raises(TypeError, match=r"^main\(\) passes .*, but its Lua header names others$"):
        script(int)(build)


def test_a_call_has_its_arguments_in_the_order_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "-- KEYS[1] state\n-- ARGV[1] project_id\n-- ARGV[2] partitions\n-- ARGV[3] members\nreturn 1\n"
    pretend(monkeypatch, main=source)

    @script(int)
    def main(*, members: Sequence[str], owner: Owner, state: str) -> KeysAndArguments:
        return (state,), (*owner, *members)

    call = main(state="k", owner=Owner("p", 2), members=["a", "b"])
    assert call.evalsha == ("EVALSHA", main.script.sha, 1, "k", "p", 2, "a", "b")
    assert call.eval == ("EVAL", source, 1, "k", "p", 2, "a", "b")
    assert call.parse(b"7") == 7


#: Statuses that are not errors.
SUCCESS = {b"ok", b"created", b"exists", b"expected", b"registered"}


def test_every_status_that_a_script_returns_is_an_error_or_a_success() -> None:
    functions = [value for value in vars(script_calls).values() if isinstance(value, ScriptFunction)]
    sources = [each.script.source for each in functions if each._parse is script_calls._status]
    returned = {status.encode() for source in sources for status in re.findall(r'(?:return|and|or) \{ "(\w+)"', source)}
    assert returned == SUCCESS | set(script_calls._ERRORS)
    assert not SUCCESS & set(script_calls._ERRORS)


@pytest.mark.parametrize("status", sorted(script_calls._ERRORS))
def test_an_error_status_raises_and_a_success_does_not(status: bytes) -> None:
    with pytest.raises(ServiceError):
        StatusReply(status, [b"If-Match"]).raise_for_status(Limits())
    for success in SUCCESS:
        StatusReply(success, []).raise_for_status(Limits())


WRITE = re.compile(r'call\("(?:HSET|HDEL|HINCRBY|SADD|SREM|ZADD|ZREM|ZREMRANGEBYRANK|DEL|SET|UNLINK)"')
#: These write keys of no project, or repair the owner that the others check.
WITHOUT_OWNER = {"preflight", "rate_limit", "verify_type", "verify_state"}


@pytest.mark.parametrize("name", NAMES)
def test_every_script_that_writes_checks_the_owner_before_its_first_write(name: str) -> None:
    source = body(name)
    # `count` includes code that writes, and uses none of it.
    writes = name != "count_sessions" and WRITE.search(re.sub(r"--.*", "", load(name).source)) is not None
    compared = re.search(r"\b(?:owner_error|partition_owner_error|project_owner_error)\(", source)
    assert (compared is not None) is (writes and name not in WITHOUT_OWNER)
    if compared is not None:
        first = re.search(r"\b(?:commit|remove|renumber|add_user|update_index)\(", source)
        written = min(match.start() for match in (WRITE.search(source), first) if match is not None)
        assert compared.start() < written


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.stem)
def test_no_script_hands_json_to_cjson_or_needs_redis_7(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert "cjson" not in source
    assert "#!lua" not in source


@pytest.mark.parametrize("path", ALL_FILES, ids=lambda path: path.stem)
def test_no_script_turns_a_number_into_text_by_lua_s_own_rules(path: Path) -> None:
    assert "tostring" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in ALL_FILES if path.parent.name == "include"], ids=lambda path: path.stem)
def test_every_include_is_included_somewhere(path: Path) -> None:
    assert any(f"-- include: {path.stem}\n" in other.read_text(encoding="utf-8") for other in ALL_FILES)


def test_an_include_replaces_its_directive(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- head\n-- include: a\nreturn a\n", include_a="local a = 1\n")
    assert load("main").source == "-- head\nlocal a = 1\nreturn a\n"


def test_a_file_included_twice_appears_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch,
        main="-- include: a\n-- include: b\n-- include: a\n",
        include_a="-- include: b\nlocal a = 1\n",
        include_b="local b = 1\n",
    )
    assert load("main").source == "local b = 1\nlocal a = 1\n"


def test_an_include_that_includes_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- include: a\n", include_a="-- include: b\n", include_b="-- include: a\n")
    with pytest.raises(ValueError, match="Lua include a → b → a is a cycle"):
        load("main")


@pytest.mark.parametrize("sources", [{}, {"main": "-- include: nowhere\n"}], ids=["the script", "an include"])
def test_a_file_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, sources: dict[str, str]) -> None:
    pretend(monkeypatch, **sources)
    with pytest.raises(FileNotFoundError):
        load("main")


@pytest.mark.parametrize(
    "header",
    ["-- KEYS[2] session\n", "-- KEYS[1] session\n-- KEYS[1] again\n", "-- KEYS[1] a\n-- KEYS[3] c\n", "-- KEYS[0] a\n"],
)
def test_a_header_must_number_its_keys_from_one(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    pretend(monkeypatch, main=header)
    with pytest.raises(ValueError, match=r"main.lua does not number its KEYS from 1"):
        load("main")


def test_the_same_holds_for_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- KEYS[1] session\n-- ARGV[2] prefix\n")
    with pytest.raises(ValueError, match=r"main.lua does not number its ARGV from 1"):
        load("main")
