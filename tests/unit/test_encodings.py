"""Every text file is opened with the name of its encoding: the default is the locale's, GBK or ASCII on some machines."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("service", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))


def opens_text(call: ast.Call) -> bool:
    """Whether a call opens, reads or writes text in the encoding of the locale."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("open", "fdopen"):
        # `path.open("w")`, `path.open()`, `open(path)`, `os.fdopen(number, "w")`; other methods called open take no mode.
        is_method = isinstance(call.func, ast.Attribute) and name == "open"
        mode = call.args[0 if is_method else 1] if len(call.args) > (0 if is_method else 1) else None
        if mode is None:
            return not (is_method and call.args) and not (is_method and is_class(call.func))
        return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and set(mode.value) <= set("rwax+t")
    return False


def is_class(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id[0].isupper()


def decodes_output(call: ast.Call) -> bool:
    """Whether a call of subprocess decodes what the program prints as the locale says."""
    names = {keyword.arg for keyword in call.keywords}
    return bool(names & {"text", "universal_newlines"}) and "encoding" not in names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_opened_in_the_encoding_of_the_locale(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if opens_text(call)] == []
    if not path.is_relative_to(ROOT / "tests"):  # what tests start speaks ASCII, or UTF-8 where they say so
        assert [call.lineno for call in calls if decodes_output(call)] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("p.read_text()", True), ("p.read_text(encoding='utf-8')", False), ("p.read_text('utf-8')", False),
        ("p.write_text(x)", True), ("p.write_text(x, encoding='utf-8')", False), ("p.open()", True), ("p.open('w')", True),
        ("p.open('wb')", False), ("open(p)", True), ("open(p, 'rb')", False), ("open(p, encoding='utf-8')", False),
        ("os.fdopen(1, 'w')", True), ("os.fdopen(1, 'r+b')", False), ("RedisClient.open(url)", False),
        ("ring.open('Bearer')", False), ("a.read_bytes()", False),
    ],
)  # fmt: skip
def test_the_scan_knows_how_files_are_opened(code: str, *, expected: bool) -> None:
    (statement,) = ast.parse(code).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert opens_text(statement.value) is expected
