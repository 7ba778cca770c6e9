"""The Lua scripts as files: headers, includes, and how Python calls them. No Redis."""

import ast
import re
from importlib import resources
from pathlib import Path

import pytest

import service.store
from service.store import scripts
from service.store.keys import Owner, Partition
from service.store.scripts import load

LUA = Path(str(resources.files("service.store"))) / "lua"
NAMES = sorted(path.stem for path in LUA.glob("*.lua"))
ALL_FILES = sorted(LUA.rglob("*.lua"))

#: The last argument of these stands for many.
MANY = {
    "adopt_session": "fields",
    "find_candidates": "required_terms",
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
    """The indexes with which a script reads KEYS or ARGV, the start of a loop over the rest included."""
    source = body(name)
    indexes = {int(index) for index in re.findall(kind + r"\[(\d+)\]", source)}
    if kind == "ARGV":
        indexes |= {int(first) for first in re.findall(r"for i = (\d+), #ARGV\b", source)}
    return indexes


def test_there_are_scripts_to_test() -> None:
    assert {"create", "replace", "patch", "delete", "find_candidates"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_loads_and_is_known_by_its_sha(name: str) -> None:
    script = load(name)
    assert script.name == name
    assert re.fullmatch("[0-9a-f]{40}", script.sha)
    assert "-- include:" not in script.source


@pytest.mark.parametrize("name", NAMES)
def test_a_header_says_what_the_script_does_and_what_it_returns(name: str) -> None:
    header = re.match(r"(?:--.*\n)+", (LUA / f"{name}.lua").read_text(encoding="utf-8"))
    assert header is not None
    assert header[0].startswith(f"-- {name}: ")
    assert re.search(r"^-- returns ", header[0], re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_reads_exactly_the_keys_and_arguments_that_its_header_names(name: str) -> None:
    script = load(name)
    assert used("KEYS", name) == set(range(1, len(script.keys) + 1))
    assert used("ARGV", name) == set(range(1, len(script.arguments) + 1))


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


#: What stands for several arguments, by the attribute that is unpacked.
SEVERAL = {"arguments": len(Partition("", 0).arguments), "owner": len(Owner._fields)}


def count(argument: ast.Tuple) -> tuple[int, bool]:
    """How many items a tuple has that is written out, and whether its last stands for any number of them."""
    total, rest = 0, False
    for item in argument.elts:
        unpacked = item.value if isinstance(item, ast.Starred) else None
        rest = unpacked is not None and not (isinstance(unpacked, ast.Attribute) and unpacked.attr in SEVERAL)
        total += SEVERAL[unpacked.attr] if isinstance(unpacked, ast.Attribute) and unpacked.attr in SEVERAL else 1
    return total, rest


def calls() -> list[tuple[str, str, int, bool]]:
    """Every call of a script whose tuples are written out: script, KEYS or ARGV, length, whether the last item is starred."""
    found = []
    for path in sorted(Path(service.store.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "run":
                continue
            owner = node.func.value
            if not isinstance(owner, ast.Name) or not owner.id.isupper():
                continue
            for kind, argument in zip(("KEYS", "ARGV"), node.args[1:], strict=False):
                if isinstance(argument, ast.Tuple):
                    found.append((owner.id.lower(), kind, *count(argument)))
    return found


def test_python_hands_each_script_as_many_keys_and_arguments_as_its_header_names() -> None:
    checked = set()
    for name, kind, number, starred in calls():
        script = load(name)
        declared = script.keys if kind == "KEYS" else script.arguments
        checked.add((name, kind))
        if starred:
            assert name in MANY, f"{name} takes no rest"
        # A rest that is empty may be left out.
        assert number == len(declared) or (name in MANY and number == len(declared) - 1), f"{name} {kind}"
    # `patch` builds its arguments beforehand, `delete` for one call and for many; the others are run many at once.
    assert checked >= {(name, kind) for name in NAMES for kind in ("KEYS", "ARGV")} - {
        ("patch", "ARGV"),
        ("count_sessions", "KEYS"),
        ("count_sessions", "ARGV"),
        ("delete", "KEYS"),
        ("delete", "ARGV"),
        ("adopt_session", "ARGV"),
        ("count_sessions", "KEYS"),
        ("count_sessions", "ARGV"),
        ("expire", "KEYS"),
        ("expire", "ARGV"),
        ("assign_serials", "KEYS"),
        ("assign_serials", "ARGV"),
        ("set_session_ttl", "KEYS"),
        ("set_session_ttl", "ARGV"),
        ("preflight", "KEYS"),
        ("preflight", "ARGV"),
        ("register_user", "KEYS"),
        ("expect_user", "KEYS"),
        ("withdraw_user", "KEYS"),
        ("delete_user", "KEYS"),
        ("verify_state", "ARGV"),
    }


WRITE = re.compile(r'call\("(?:HSET|HDEL|HINCRBY|SADD|SREM|ZADD|ZREM|ZREMRANGEBYRANK|DEL|SET|UNLINK)"')
#: What these write belongs to no project, or is the very repair of what the others compare.
UNOWNED = {"preflight", "rate_limit", "verify_type", "verify_state"}


@pytest.mark.parametrize("name", NAMES)
def test_every_script_that_writes_compares_whose_keys_they_are_before_its_first_write(name: str) -> None:
    source = body(name)
    # `count` includes what writes, and uses none of it.
    writes = name != "count_sessions" and WRITE.search(re.sub(r"--.*", "", load(name).source)) is not None
    compared = re.search(r"\b(?:owner_error|partition_owner_error|project_owner_error)\(", source)
    assert (compared is not None) is (writes and name not in UNOWNED)
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


def test_an_include_stands_where_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- head\n-- include: a\nreturn a\n", include_a="local a = 1\n")
    assert load("main").source == "-- head\nlocal a = 1\nreturn a\n"


def test_what_is_included_twice_stands_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(
        monkeypatch,
        main="-- include: a\n-- include: b\n-- include: a\n",
        include_a="-- include: b\nlocal a = 1\n",
        include_b="local b = 1\n",
    )
    assert load("main").source == "local b = 1\nlocal a = 1\n"


def test_an_include_that_includes_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- include: a\n", include_a="-- include: b\n", include_b="-- include: a\n")
    with pytest.raises(ValueError, match="Lua include a → b → a is a circle"):
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


def test_a_command_names_the_script_by_its_sha_and_counts_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, main="-- KEYS[1] session\n-- ARGV[1] prefix\nreturn 1\n")
    script = load("main")
    assert (script.keys, script.arguments) == (("session",), ("prefix",))
    assert script.command(("k",), ("a", b"b", 3)) == ("EVALSHA", script.sha, 1, "k", "a", b"b", 3)
