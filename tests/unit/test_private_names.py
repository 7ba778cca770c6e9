"""Every private name of a library that the service uses, in one list: an upgrade may break them silently.

The list is compared with the source: an attribute that begins with an underscore and is not defined by the class that uses it
on `self`, or by a class of ours that it inherits from; such an attribute of any other object; a private name or module that is
imported.
"""

import ast
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from redis.asyncio.connection import AbstractConnection

import service
from service.http.server.connections import Connection, Server
from service.http.server.protocol import Protocol
from service.http.server.receiver import Receiver
from service.store.record import Session

ROOT = Path(service.__file__).parent

#: The file that uses each name, and the object that has it. `AbstractConnection` is redis-py's, the others are aiohttp's.
ATTRIBUTES: dict[tuple[str, str], object] = {
    ("http/server/protocol.py", "_drain_helper"): RequestHandler,
    ("http/server/protocol.py", "_drain_waiter"): RequestHandler,
    ("http/server/protocol.py", "_lingering_time"): RequestHandler,
    ("http/server/protocol.py", "_loop"): RequestHandler,
    ("http/server/protocol.py", "_message"): web.BaseRequest,
    ("http/server/protocol.py", "_paused"): RequestHandler,
    ("http/server/protocol.py", "_request_count"): RequestHandler,
    ("http/server/receiver.py", "_max_msg_queue_size"): RequestHandler,
    ("http/server/receiver.py", "_loop"): RequestHandler,
    ("http/server/receiver.py", "_messages"): RequestHandler,
    ("http/server/receiver.py", "_parser"): RequestHandler,
    ("http/server/receiver.py", "_reading_paused"): RequestHandler,
    ("http/server/receiver.py", "_request_count"): RequestHandler,
    ("http/server/receiver.py", "_waiter"): RequestHandler,
    ("http/server/connections.py", "_connections"): web.Server,
    ("http/server/connections.py", "_buffer_paused"): RequestHandler,
    ("http/server/connections.py", "_close"): RequestHandler,
    ("http/server/connections.py", "_force_close"): RequestHandler,
    ("http/server/connections.py", "_handle_request"): RequestHandler,
    ("http/server/connections.py", "_keepalive"): RequestHandler,
    ("http/server/connections.py", "_keepalive_handle"): RequestHandler,
    ("http/server/connections.py", "_keepalive_timeout"): RequestHandler,
    ("http/server/connections.py", "_lingering_time"): RequestHandler,
    ("http/server/connections.py", "_make_error_handler"): RequestHandler,
    ("http/server/connections.py", "_messages"): RequestHandler,
    ("http/server/connections.py", "_msg_queue_resume_size"): RequestHandler,
    ("http/server/connections.py", "_parser"): RequestHandler,
    ("http/server/connections.py", "_process_keepalive"): RequestHandler,
    ("http/server/connections.py", "_resume_reading_if_drained"): RequestHandler,
    ("http/server/connections.py", "_task_handler"): RequestHandler,
    ("http/server/connections.py", "_kwargs"): web.Server,
    ("http/server/connections.py", "_loop"): RequestHandler,
    ("http/server/connections.py", "_next_keepalive_close_time"): RequestHandler,
    ("http/server/connections.py", "_request_count"): RequestHandler,
    ("http/server/connections.py", "_waiter"): RequestHandler,
    ("redis_client/multiplexer.py", "_reader"): AbstractConnection,
    ("redis_client/multiplexer.py", "_writer"): AbstractConnection,
    # Private by name only: documented by Python.
    ("process/workers.py", "_exit"): os,
    ("http/app.py", "_exit"): os,
    ("process/parent_death.py", "_exit"): os,
    ("store/ownership.py", "_asdict"): Session,
    ("store/scripts.py", "_fields"): Session,
}
IMPORTS = {
    ("http/server/connections.py", "aiohttp.web_protocol._ErrInfo"),
    ("http/server/receiver.py", "aiohttp.web_protocol._ErrInfo"),
}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def attributes(tree: ast.AST) -> Iterator[ast.Attribute]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private(node.attr))


def slots_of(node: ast.ClassDef) -> set[str] | None:
    """The `__slots__` of a class, None where it has none."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__slots__":
            return set(ast.literal_eval(statement.value))
    return None


def defined_by(node: ast.ClassDef) -> set[str]:
    """The private names that a class defines: methods, fields, and attributes that it sets on itself."""
    names = {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))}
    names |= {ast.unparse(item.target) for item in node.body if isinstance(item, ast.AnnAssign)}
    # In a class with slots, an attribute that is set and is not a slot belongs to the base class.
    slots = slots_of(node)
    stored = {item.attr for item in attributes(node) if on_self(item) and isinstance(item.ctx, ast.Store)}
    return {name for name in names | (stored if slots is None else slots) if is_private(name)}


def classes_in(tree: ast.AST) -> list[ast.ClassDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def base_names(node: ast.ClassDef) -> set[str]:
    """The bases of a class, without modules and type arguments."""
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return {ast.unparse(base).rpartition(".")[2] for base in bases}


SOURCES = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.rglob("*.py"))}
OURS: dict[str, list[ast.ClassDef]] = {}
for _tree in SOURCES.values():
    for _node in classes_in(_tree):
        OURS.setdefault(_node.name, []).append(_node)


def known_to(node: ast.ClassDef) -> set[str]:
    """The private names of a class and of those of ours that it inherits from."""
    names = defined_by(node)
    for base in base_names(node):
        for parent in OURS.get(base, []):
            if parent is not node:
                names |= known_to(parent)
    return names


def foreign_attributes(tree: ast.AST) -> set[str]:
    """Private attributes in a module that no class of ours defines."""
    foreign = {node.attr for node in attributes(tree) if not on_self(node)}
    for node in classes_in(tree):
        foreign |= {item.attr for item in attributes(node) if on_self(item)} - known_to(node)
    return foreign


def private_imports(tree: ast.AST) -> set[str]:
    """What a module imports by a private name, or from a private module, of another library."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if not name.startswith("service.") and any(map(is_private, name.split(".")))}


def has(owner: object, name: str) -> bool:
    """Whether an object has an attribute, or its class, or one that this inherits from, sets it on its instances."""
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    sources = (ast.parse(inspect.cleandoc("\n" + inspect.getsource(one))) for one in owner.__mro__ if one is not object)
    return any(item.attr == name and isinstance(item.ctx, ast.Store) for tree in sources for item in attributes(tree))


def test_the_list_has_every_private_attribute_in_use_and_no_other() -> None:
    assert {(path, name) for path, tree in SOURCES.items() for name in foreign_attributes(tree)} == set(ATTRIBUTES)


def test_the_list_has_every_private_import_and_no_other() -> None:
    assert {(path, name) for path, tree in SOURCES.items() for name in private_imports(tree)} == IMPORTS


@pytest.mark.parametrize(("path", "name"), ATTRIBUTES, ids=" ".join)
def test_a_private_attribute_in_use_exists_in_the_library_installed(path: str, name: str) -> None:
    assert has(ATTRIBUTES[path, name], name)


@pytest.mark.parametrize(
    ("ours", "base"),
    [(Connection, RequestHandler), (Receiver, RequestHandler), (Protocol, RequestHandler), (Server, web.Server)],
)
def test_no_private_name_of_ours_is_one_of_the_class_inherited_from(ours: type, base: type) -> None:
    (node,) = ast.parse(inspect.getsource(ours)).body
    assert isinstance(node, ast.ClassDef)
    assert {name for name in defined_by(node) if has(base, name)} == set()


def test_private_names_of_other_libraries_are_detected() -> None:
    source = """
from a import _b
import c._d
class Base:
    def __init__(self): self._set = 1
    def _method(self): ...
class Slotted(Base):
    __slots__ = ("_slot",)
    def read(self, other):
        self._theirs_stored = self._slot + self._theirs_read()
        other._field, self._missing
"""
    tree = ast.parse(source)
    assert foreign_attributes(tree) == {"_theirs_stored", "_theirs_read", "_field", "_missing"}
    assert private_imports(tree) == {"a._b", "c._d"}
    assert not has(RequestHandler, "_no_such_name")
    assert has(AbstractConnection, "_writer")
