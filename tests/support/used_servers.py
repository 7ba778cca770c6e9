"""Hooks of pytest that print, in one line at the end, which Redis servers and which Postgres the tests ran on."""

from collections.abc import Iterator

import pytest

from tests.support.redis_servers import SERVERS

#: What the tests of this process have used, such as "Redis 7.0.15"; the controller of pytest-xdist adds that of its workers.
USED: set[str] = set()

_TITLES = {server.path: server.title for server in SERVERS}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note the servers among the parameters of a test and of its fixtures."""
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        USED.update(_TITLES[value] for value in callspec.params.values() if isinstance(value, str) and value in _TITLES)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Hand the set to the controller, once fixtures have ended."""
    yield
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["used_servers"] = sorted(USED)


def pytest_testnodedown(node: object) -> None:
    """Take the set of a worker that has finished; one that crashed has none."""
    USED.update(getattr(node, "workeroutput", {}).get("used_servers", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the line."""
    if USED:
        terminalreporter.line(f"ran on {', '.join(sorted(USED, reverse=True))}")
