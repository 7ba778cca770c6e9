"""`find`, `check` and `project` as an operator types them, on a real Redis."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from service import cli
from service.commands import _offline
from service.commands import project as project_command
from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store.keys import BLOCK_SIZE, STORE, Partition, partition_number
from service.store.manifest import LAYOUT
from service.store.projects import Registry
from service.store.sessions import Sessions
from service.store.upkeep import repartition
from tests.support.filling import TIMEOUT, add, keyspace, lapse, session_id

WIDE = {f"k{number}": number for number in range(80)}
#: The configs of sessions 1, 2, 3 …, and the user of each.
STORED: list[tuple[object, str | None]] = [
    (b'{"agent":"bot1","temperature":0.70,"runtime":{"name":"r1","version":"2.1"},"tags":["t1","t2"]}', "alice@example.com"),
    ({"agent": "bot2", "temperature": 0.7, "runtime": {}, "tags": []}, "alice@example.com"),
    ({"agent": "bot1", "env": "prod", "agents": [{"name": "x"}, {"name": "y"}], "note": None, "stream": True}, 'b"ob'),
    ({"my key": "a b", 'q"q': 1, "ключ": {"a.b": "c=d"}, "": "empty", "@user": "alice@example.com"}, None),
    ({"agent": "bot1", "wide": WIDE}, None),
    ({"agent": "x" * 200, "1": 1, "n": 1e2, "text": "line\nbreak", "spaced": "a  b"}, None),
    (None, "alice@example.com"),
]
ALL = list(range(1, len(STORED) + 1))

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(empty_redis: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; its status, and what it wrote to standard output and standard error."""
    monkeypatch.setenv("SCC_REDIS_URL", empty_redis)
    monkeypatch.setenv("SCC_KEY_SECRET", "a secret")
    monkeypatch.setenv("SCC_DATA_DIR", "/nowhere")
    # A busy machine must not change a result.
    monkeypatch.setenv("SCC_COMMAND_TIMEOUT", "5")

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = cli.main(words)
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def on_store(url: str, use: Callable[[RedisClient], Awaitable[Any]]) -> Any:  # noqa: ANN401 - what `use` returns
    """Run `use` with a client of the store, and return its result."""

    async def with_client() -> Any:  # noqa: ANN401 - as above
        redis = RedisClient.open(url, timeout=TIMEOUT)
        try:
            return await use(redis)
        finally:
            await redis.close()

    return asyncio.run(with_client())


async def fill_default(redis: RedisClient, partitions: int = 1) -> None:
    await redis.call("HSET", STORE, "layout", LAYOUT, "partitions", partitions, "block_size", BLOCK_SIZE)
    project = await Registry(redis, "a secret").ensure("default")
    sessions = Sessions(redis, project, Limits(), partitions)
    for number, (configs, user) in enumerate(STORED, 1):
        await add(sessions, number, configs, user)


@pytest.fixture(params=[1, 3])
def find(request: pytest.FixtureRequest, run: Run, empty_redis: str) -> Callable[..., list[int]]:
    """Runs `find` on the stored sessions and returns the numbers of those it printed."""
    on_store(empty_redis, lambda redis: fill_default(redis, request.param))

    def find(*words: str) -> list[int]:
        status, out, err = run("find", *words)
        assert err == ""
        matches = [line.split(" ", 1)[0] for line in out.splitlines()]
        assert status == (0 if matches else 1)
        return [ALL[[session_id(number) for number in ALL].index(name)] for name in matches]

    return find


@pytest.mark.parametrize(
    ("terms", "numbers"),
    [
        ("", ALL),
        ('agent="bot1"', [1, 3, 5]),
        ('agent="bot1" env="prod"', [3]),
        ('  agent="bot1"\n\tenv="prod" ', [3]),
        ("temperature=0.7", [1, 2]),
        ("temperature=0.70", [1, 2]),
        ("temperature=7e-1", [1, 2]),
        ("n=100", [6]),
        ("n=100.0", [6]),
        ("1=1", [6]),
        ("stream=true", [3]),
        ("note=null", [3]),
        ('runtime.version="2.1"', [1]),
        ("runtime{}", [2]),
        ("tags[]", [2]),
        ('tags[]="t1"', [1]),
        ('tags[]="t1" tags[]="t2"', [1]),
        ('tags[]="t3"', []),
        ('agents[].name="x"', [3]),
        ('agents[].name="x" agents[].name="y"', [3]),
        ('"my key"="a b"', [4]),
        (r'"q\"q"=1', [4]),
        ('"ключ"."a.b"="c=d"', [4]),
        ('""="empty"', [4]),
        ('"@user"="alice@example.com"', [4]),
        (r'text="line\nbreak"', [6]),
        ('spaced="a  b"', [6]),
        (f'agent="{"x" * 200}"', [6]),
        (f'agent="{"x" * 201}"', []),
        ("wide~", [5]),
        ("wide.k7=7", [5]),
        ("wide.k7=8", []),
        ('wide.k7=7 wide.k79=79 agent="bot1"', [5]),
        ('@user="alice@example.com"', [1, 2, 7]),
        ('@user="alice@example.com" agent="bot1"', [1]),
        (r'@user="b\"ob"', [3]),
        ('@user="nobody"', []),
        ('agent="Bot1"', []),
        ("agent=1", []),
        ('runtime.name="r1" agent="bot2"', []),
    ],
)
def test_terms_find_the_sessions_that_have_them_all(find: Callable[..., list[int]], terms: str, numbers: list[int]) -> None:
    assert find(terms) == numbers
    assert find(terms, "--newest") == numbers[::-1]
    assert find(terms, "--limit", "1") == numbers[:1]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ("{}", ALL),
        ('{"agent":"bot1"}', [1, 3, 5]),
        ('{"temperature":0.70}', [1, 2]),
        ('{"runtime":{}}', [1, 2]),
        ('{"wide":{"k7":7}}', [5]),
        ('{"agents":[{"name":"y"}]}', [3]),
        ('{"agents":[{"name":"z"}]}', []),
        ('{"note":null}', [3]),
    ],
)
def test_a_filter_finds_what_the_api_would_list(
    find: Callable[..., list[int]], run: Run, wanted: str, numbers: list[int]
) -> None:
    assert find("--json", wanted) == numbers
    assert find("--json", wanted, "--newest", "--limit", "2") == numbers[::-1][:2]
    assert run("find", "--json", wanted, "--count") == (0 if numbers else 1, f"{len(numbers)}\n", "")


def test_a_session_is_a_line_of_its_id_and_its_configs_as_they_were_sent(run: Run, empty_redis: str) -> None:
    on_store(empty_redis, fill_default)
    sent = STORED[0][0]
    assert isinstance(sent, bytes)
    assert run("find", "temperature=0.7", "--limit", "1") == (0, f"{session_id(1)} {sent.decode()}\n", "")
    assert run("find", '@user="alice@example.com"', "--newest", "--limit", "1")[1] == f"{session_id(7)} null\n"


def test_more_than_a_page_is_printed_up_to_the_limit(run: Run, empty_redis: str) -> None:
    async def fill_many(redis: RedisClient) -> None:
        await redis.call("HSET", STORE, "partitions", 1)
        sessions = Sessions(redis, await Registry(redis, "").ensure("many"), Limits())
        for number in range(1, 601):
            await add(sessions, number, {"a": number % 2})

    on_store(empty_redis, fill_many)
    odd = [session_id(number) for number in range(1, 601, 2)]

    def ids(*words: str) -> list[str]:
        return [line.split()[0] for line in run("find", "a=1", "--project", "many", *words)[1].splitlines()]

    assert ids() == odd[:20]
    assert ids("--limit", "299") == odd[:299]
    assert ids("--limit", "5000") == odd
    assert ids("--limit", "300", "--newest") == odd[::-1]
    assert run("find", "a=1", "--project", "many", "--count") == (0, "300\n", "")


@pytest.mark.parametrize("partitions", [1, 3])
def test_an_expired_session_is_neither_found_nor_counted_nor_reported(run: Run, empty_redis: str, partitions: int) -> None:
    async def fill_and_lapse(redis: RedisClient) -> None:
        await fill_default(redis, partitions)
        sessions = Sessions(redis, await Registry(redis, "a secret").get("default"), Limits(), partitions)
        for number in (1, 7):
            assert await lapse(sessions, session_id(number))

    on_store(empty_redis, fill_and_lapse)
    for words, numbers in (('agent="bot1"', (3, 5)), ('@user="alice@example.com"', (2,)), ("", (2, 3, 4, 5, 6))):
        matches = {line.split()[0] for line in run("find", words)[1].splitlines()}
        assert matches == {session_id(number) for number in numbers}
        assert run("find", words, "--count")[1] == f"{len(numbers)}\n"
    assert run("check")[:2] == (0, "1 project checked: no differences\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (('agent="bot1',), 'a double quote is not closed; type a term like agent="bot1"'),
        (("agent=bot1",), "agent=bot1: the value must be JSON; put text in double quotes"),
        (("agent",), 'agent has no value; type a term like agent="text" or agent=1'),
        (("agent=",), "agent=: the value must be JSON; put text in double quotes"),
        (("=1",), '=1 is not a term; type a term like agent="bot1", runtime.version="2.1" or tags[]="t1"'),
        (("agent={}",), "agent={}: the value must be text, a number, true, false or null"),
        (("@user=5",), 'type a user like @user="alice@example.com"'),
        (("@user",), "@user: the value must be JSON; put text in double quotes"),
        (
            ('@users="alice"',),
            '@users="alice" is not a term; type a term like agent="bot1", runtime.version="2.1" or tags[]="t1"',
        ),
        (('@user="a" @user="b"',), "@user is given twice, but a session has one user"),
        ((), "find needs terms, or a filter with --json"),
        (("a=1", "--json", "{}"), "find needs terms, or a filter with --json"),
        (("a=1", "--limit", "0"), "--limit must be 1 or more"),
        (("--json", "{oops"), "filter_by_configs: the JSON cannot be parsed"),
        (("--json", "[1]"), "filter_by_configs must be a JSON object"),
        (("a=1", "--project", "nowhere"), "there is no project nowhere"),
    ],
)
def test_a_usage_error_is_one_line(run: Run, empty_redis: str, words: tuple[str, ...], message: str) -> None:
    on_store(empty_redis, fill_default)
    assert run("find", *words) == (1, "", message + "\n")


@pytest.mark.parametrize("command", ["find a=1", "check", "project list"])
def test_a_missing_store_is_reported_in_one_line(run: Run, command: str) -> None:
    name, *rest = command.split()
    status, out, err = run(name, "--redis-url", "unix:///nowhere/redis.sock", *rest)
    assert (status, out) == (1, "")
    assert err == "the socket in redis_url does not exist\n"


def test_a_check_of_a_whole_store_says_so(run: Run, empty_redis: str) -> None:
    on_store(empty_redis, fill_default)
    assert run("project", "create", "other")[0] == 0
    status, out, _ = run("check")
    assert (status, out) == (0, "2 projects checked: no differences\n")
    status, out, _ = run("check", "--project", "other")
    assert (status, out) == (0, "1 project checked: no differences\n")
    assert run("check", "--project", "nowhere")[0] == 1


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_check_names_every_difference_and_repairs_it_on_request(run: Run, empty_redis: str, partitions: int) -> None:
    on_store(empty_redis, lambda redis: fill_default(redis, partitions))

    async def damage(redis: RedisClient) -> None:
        for name in await redis.call("KEYS", '*:index:0:agent="bot1"'):
            await redis.call("DEL", name)
        for name in await redis.call("KEYS", f"*:session:{session_id(2)}"):
            await redis.call("HSET", name, "configs", '{"agent":"bot3"}')

    on_store(empty_redis, damage)
    status, out, _ = run("check")
    lines = out.splitlines()
    assert status == 1
    for number in (1, 3, 5):
        assert f'default: session {session_id(number)} is missing from the index of agent="bot1"' in lines
    assert f"default: session {session_id(2)}: the configs were edited manually" in lines
    assert lines[-1] == f"1 project checked: {len(lines) - 1} differences"
    status, out, _ = run("check", "--repair")
    repaired = len(out.splitlines()) - 1
    assert (status, out.splitlines()[-1]) == (0, f"1 project checked: {repaired} differences, {repaired} repaired")
    assert run("check")[:2] == (0, "1 project checked: no differences\n")
    assert run("find", 'agent="bot3"', "--count")[1] == "1\n"


def test_a_finding_beyond_repair_keeps_the_exit_status_at_one(run: Run, empty_redis: str) -> None:
    on_store(empty_redis, fill_default)
    on_store(empty_redis, lambda redis: redis.call("HSET", f"scc:{{default.0}}:session:{session_id(6)}", "configs", "{oops"))
    assert run("check", "--repair")[0] == 1
    status, out, _ = run("check", "--repair")
    assert (status, out.splitlines()[-1]) == (1, "1 project checked: 1 difference, 0 repaired")
    assert out.startswith(f"default: session {session_id(6)}: the configs cannot be read: ")


def test_a_project_lives_from_create_to_delete(run: Run, empty_redis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_store(empty_redis, fill_default)
    untouched = on_store(empty_redis, keyspace)
    status, out, _ = run("project", "create", "acme")
    created = re.fullmatch(r"project acme ([0-9a-f-]{36})\nkey (sk-ac-[\w-]{43})\n", out)
    assert status == 0
    assert created is not None
    listed = run("project", "list")[1].splitlines()
    assert f"acme\t{created[1]}" in listed
    assert len(listed) == 2

    async def opened(redis: RedisClient) -> list[str | None]:
        projects = [await Registry(redis, "a secret").api_keys.load(key) for key in keys]
        return [project.slug if project else None for project in projects]

    keys = [created[2]]
    assert on_store(empty_redis, opened) == ["acme"]
    status, out, _ = run("project", "rotate-key", "acme")
    assert status == 0
    keys.append(out.removeprefix("key ").strip())
    assert on_store(empty_redis, opened) == [None, "acme"]
    assert all(key not in repr(on_store(empty_redis, keyspace)) for key in keys)

    async def use(redis: RedisClient) -> None:
        sessions = Sessions(redis, await Registry(redis, "a secret").get("acme"), Limits())
        for number in range(120):
            await add(sessions, number, {"a": number}, "alice")

    on_store(empty_redis, use)
    monkeypatch.setattr(project_command, "KEY_TTL", -5.0)  # cancels the time that a command may take: no wait
    status, out, _ = run("project", "delete", "acme")
    assert (status, out.splitlines()[-1]) == (0, "project acme deleted")
    assert on_store(empty_redis, keyspace) == untouched


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("create", "default"), "there is a project default already"),
        (("create", "A"), "a project's name is 1 to 63 of a-z, 0-9 and -, with no - at either end"),
        (("rotate-key", "nowhere"), "there is no project nowhere"),
        (("delete", "nowhere"), "there is no project nowhere"),
        (("delete", "default"), "project default belongs to the root key and cannot be deleted"),
    ],
)
def test_an_error_with_a_project_is_one_line(run: Run, empty_redis: str, words: tuple[str, ...], message: str) -> None:
    on_store(empty_redis, fill_default)
    before = on_store(empty_redis, keyspace)
    assert run("project", *words) == (1, "", message + "\n")
    assert on_store(empty_redis, keyspace) == before


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repartition does not wait."""
    monkeypatch.setattr(repartition, "SETTLE", 0.0)
    monkeypatch.setattr(_offline, "KEY_TTL", -5.0)  # cancels the time that a command may take: no wait


@pytest.mark.usefixtures("at_once")
def test_a_repartition_moves_the_store_and_prints_the_result(run: Run, empty_redis: str) -> None:
    on_store(empty_redis, fill_default)
    assert run("project", "create", "empty")[0] == 0
    clean = "2 projects checked: no differences\n"
    before = run("find", "")[1]
    for partitions in (3, 1):
        moved = f"7 sessions are in {partitions} partitions; start servers with --partitions {partitions}\n"
        assert run("repartition", str(partitions))[:2] == (0, moved + clean)
        assert run("find", "")[:2] == (0, before)
    assert run("repartition", "1")[:2] == (0, "the store's number of partitions is already 1\n" + clean)


@pytest.mark.usefixtures("at_once")
def test_findings_from_before_a_repartition_are_reported_after_it(run: Run, empty_redis: str) -> None:
    on_store(empty_redis, fill_default)
    on_store(empty_redis, lambda redis: redis.call("ZADD", "scc:{default.0}:sessions", 99, session_id(99)))
    status, out, _ = run("repartition", "3")
    lines = ["1 project checked: no differences", "before the move, 8 sessions were listed"]
    assert (status, out.splitlines()[1:]) == (1, lines)
    key = Partition("default", partition_number(session_id(2), 3)).session(session_id(2))
    assert on_store(empty_redis, lambda redis: redis.call("HSET", key, "configs", '{"agent":"bot2"}')) == 0
    status, out, _ = run("repartition", "2")
    assert status == 1
    assert f"default: session {session_id(2)}: the configs were edited manually" in out.splitlines()
    assert run("check", "--repair")[0] == 0
    assert run("check")[:2] == (0, "1 project checked: no differences\n")


@pytest.mark.parametrize("command", ["find a=1", "check", "check --repair", "project list", "project create other"])
def test_commands_refuse_a_store_that_is_being_repartitioned(run: Run, empty_redis: str, command: str) -> None:
    on_store(empty_redis, fill_default)
    on_store(empty_redis, lambda redis: redis.call("HSET", STORE, "moving_to", 3, "moving_phase", "move", "moving_sessions", 7))
    before = on_store(empty_redis, keyspace)
    sentence = "a repartition to 3 is unfinished; run `repartition 3` to complete it\n"
    assert run(*command.split()) == (1, "", sentence)
    assert on_store(empty_redis, keyspace) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("0",), "setting partitions must be 1 to 1,024"),
        (("1025",), "setting partitions must be 1 to 1,024"),
        (("2",), "this Redis holds no store"),
        (("2", "--redis-url", "unix:///nowhere/s"), "the store is not available; run this command again to resume"),
        (("2", "--redis-url", ""), "there is no store in data directory /nowhere"),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_an_impossible_repartition_is_refused(run: Run, empty_redis: str, words: Sequence[str], message: str) -> None:
    assert run("repartition", *words) == (1, "", message + "\n")
    assert on_store(empty_redis, keyspace) == {}
