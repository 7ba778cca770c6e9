"""The layers: imports point down only. Read from the source, so that an import inside a function counts as well."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import service

ROOT = Path(service.__file__).parent

#: From the top down; a module imports from its line and from those below it.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("service.__main__",),
    ("service.cli",),
    ("service.commands",),
    ("service.client",),
    ("service.http.admin",),
    ("service.http.app",),
    ("service.http.api",),
    ("service.http.server",),
    ("service.store.upkeep",),
    ("service.store",),
    ("service.redis_client",),
    ("service.process",),
    ("service.setting_sources",),
    ("service.settings",),
    ("service.configs",),
    ("service.process.memory_limit",),
    ("service.errors", "service"),
)

#: Packages of others, and the only places that may import each.
HOMES = {
    "aiohttp": ("service.http",),
    "multidict": ("service.http",),
    "uvloop": ("service.http",),
    "redis": ("service.redis_client",),
    "hiredis": ("service.redis_client",),
    "msgspec": ("service.configs", "service.settings", "service.client", "service.process.backup"),
    "httpx": ("service.client",),
    "prometheus_client": ("service.http.admin",),
    "opentelemetry": ("service.http.server.tracing",),
    "click": ("service.cli", "service.commands"),
}

#: What reaches outside of the process, or is not the same on every call.
IMPURE = {
    "asyncio", "concurrent", "datetime", "fcntl", "http", "importlib", "io", "logging", "multiprocessing", "os", "pathlib",
    "random", "secrets", "select", "shutil", "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time",
    "urllib", "uuid",
}  # fmt: skip


def name_of(path: Path) -> str:
    """Dotted name of the module in a file under service/."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def imports_of(source: str, modules: set[str]) -> set[str]:
    """What a module imports, wherever in it: `from service.store import keys` is service.store.keys."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            package = node.module or ""
            members = {f"{package}.{alias.name}" for alias in node.names}
            imported |= members & modules
            # Names in the package's `__init__`, and those of packages that are not ours.
            if not members <= modules:
                imported.add(package)
    return imported


PATHS = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}
IMPORTS = {name: imports_of(path.read_text(encoding="utf-8"), set(PATHS)) for name, path in PATHS.items()}
OURS = {name: {module for module in imported if inside(module, "service")} for name, imported in IMPORTS.items()}


def layer_of(module: str) -> int:
    """Number of the layer of a module of ours, from the top: that of the longest name which it is inside of."""
    layers = {
        package: number
        for number, layer in enumerate(LAYERS)
        for package in layer
        if module == package or (package != "service" and inside(module, package))
    }
    assert layers, f"{module} stands in no layer"
    return layers[max(layers, key=len)]


def test_the_modules_and_their_imports_are_read() -> None:
    assert {"service.configs.document", "service.store.sessions", "service.http.app", "service.cli"} <= set(PATHS)
    assert {"orjson", "service.configs.limits", "service.errors"} <= IMPORTS["service.configs.document"]
    source = (
        "import a.b\nfrom service.store import keys\nfrom service.errors import NotFound\ndef f():\n    import redis.asyncio\n"
    )
    assert imports_of(source, set(PATHS)) == {"a.b", "service.store.keys", "service.errors", "redis.asyncio"}


def test_every_internal_import_names_an_existing_module() -> None:
    assert {(name, module) for name, imported in OURS.items() for module in imported if module not in PATHS} == set()


@pytest.mark.parametrize("name", PATHS)
def test_a_module_imports_only_from_its_layer_and_those_below(name: str) -> None:
    assert {module for module in OURS[name] if layer_of(module) < layer_of(name)} == set()


@pytest.mark.parametrize("package", HOMES)
def test_a_third_party_package_is_imported_in_one_layer_only(package: str) -> None:
    users = {name for name, imported in IMPORTS.items() if any(inside(module, package) for module in imported)}
    assert {name for name in users if not any(inside(name, home) for home in HOMES[package])} == set()
    assert users, f"nothing imports {package} any more"


def test_configs_import_only_themselves_and_errors_and_nothing_that_reaches_outside() -> None:
    for name in (name for name in PATHS if inside(name, "service.configs")):
        assert {module for module in OURS[name] if not inside(module, "service.configs")} <= {"service.errors"}, name
        assert {module.partition(".")[0] for module in IMPORTS[name]} & IMPURE == set(), name


def test_the_store_does_not_import_http() -> None:
    for name in (name for name in PATHS if inside(name, "service.store")):
        assert {module for module in IMPORTS[name] if inside(module, "service.http") or inside(module, "aiohttp")} == set(), (
            name
        )


def test_the_client_over_http_imports_no_store_and_no_server() -> None:
    for name in (name for name in PATHS if inside(name, "service.client")):
        others = {
            module for module in OURS[name] if not inside(module, "service.client") and not inside(module, "service.configs")
        }
        assert others <= {"service", "service.errors"}, name
    allowed = ("service.client", "service.configs", "service.errors", "service.commands._parameters")
    shell = OURS["service.commands.shell"]
    assert {module for module in shell if not any(inside(module, home) for home in allowed)} == set()


def test_there_is_no_cycle_of_imports() -> None:
    try:
        TopologicalSorter(OURS).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_a_cycle_of_imports_would_be_detected() -> None:
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).prepare()
