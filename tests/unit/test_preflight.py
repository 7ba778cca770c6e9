"""The start tries every command that the service sends, as read from its source code. No Redis."""

import ast
import re
from importlib import resources
from pathlib import Path

import service
from service.store.upkeep import preflight

LUA = Path(str(resources.files("service.store"))) / "lua"
SOURCES = {path.stem: re.sub(r"--.*", "", path.read_text(encoding="utf-8")) for path in LUA.rglob("*.lua")}

#: Sent only by the command line, by tools, or to find a master: a server can serve without them.
NOT_SERVING = {
    "DBSIZE", "SCAN", "CLIENT", "SSCAN", "ZSCAN", "SISMEMBER", "ZADD", "ZCARD", "INFO", "ROLE", "CLUSTER", "ASKING",
    "PING",
}  # fmt: skip
#: Not in the list of commands: the scripts themselves, and WAIT, sent with every write if `min_replicas` is set.
BY_THEMSELVES = {"EVAL", "EVALSHA", "WAIT"}


def sent_by_python() -> set[str]:
    """The first word of every command in the source code: `("HGET", …)`, `redis.call("HGET", …)`."""
    names: set[str] = set()
    for path in Path(service.__file__).parent.rglob("*.py"):
        if path.stem in ("preflight", "embedded_redis"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            words = node.elts if isinstance(node, ast.Tuple) else node.args if isinstance(node, ast.Call) else []
            is_command = isinstance(node, ast.Tuple) or (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("call", "call_on_masters")
            )
            if is_command and words and isinstance(words[0], ast.Constant) and isinstance(words[0].value, str):
                name = words[0].value
                names |= {name} if re.fullmatch("[A-Z]{3,}", name) else set()
    return names


def test_every_command_of_every_script_is_tried_in_a_script() -> None:
    called = {name for text in SOURCES.values() for name in re.findall(r'\bp?call\(\s*"([A-Z]+)"', text)}
    assert {"HSET", "SMISMEMBER", "ZREMRANGEBYRANK"} <= called
    # Scripts write command names as literals, so all of them are checked here.
    assert not [name for name, text in SOURCES.items() if name != "preflight" and re.search(r'\bp?call\((?!\s*")', text)]
    assert set(re.findall(r'\btry\("([A-Z]+)"', SOURCES["preflight"])) == called


def test_every_command_that_is_sent_without_a_script_is_tried() -> None:
    tried = {str(command[0]) for command in preflight._commands("p:")}
    # HTTP methods, an option, a command of Sentinel, and one for operators.
    other = {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "LIMIT", "SENTINEL", "XREAD"}
    sent = sent_by_python() - NOT_SERVING - BY_THEMSELVES - other
    assert {"HMGET", "ZREVRANGEBYSCORE", "UNLINK"} <= sent
    assert sent - tried == set()
    assert tried - sent <= {"PING"}


def test_what_is_tried_is_removed_again() -> None:
    *_, last = preflight._commands("p:")
    assert last == ("DEL", "p:hash", "p:set", "p:zset", "p:string")
    *_, last_line, _ = SOURCES["preflight"].strip().splitlines()
    assert last_line == 'try("DEL", hash, set, zset, text, other)'
