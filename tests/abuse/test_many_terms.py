"""Small bodies that change as many index terms as a write may: their cost in Redis is bounded, counted in commands."""

from collections.abc import Iterator

import pytest
from redis import Redis

from service.configs.limits import Limits
from tests.support.http import Api, Operator
from tests.support.server import Serving

MAX_TERMS = Limits().max_terms
#: The most commands of a script that changes every term of a session: two sets per term, and a few reads.
MOST_COMMANDS = 2 * MAX_TERMS + MAX_TERMS // 8
#: The most bytes of index of one session in Redis.
MOST_BYTES = 256 * 1024


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    serving = Serving(
        tmp_path_factory.mktemp("terms") / "data", "--workers", "1", SCC_ROOT_TOKEN="a-root-token-of-tests"
    ).wait_ready()
    operator = Operator(serving.server("sk-ac-a-root-token-of-tests"))
    yield operator
    operator.close()
    assert (serving.stop(), serving.errors) == (0, "")


@pytest.fixture
def redis(operator: Operator) -> Iterator[Redis]:
    with Redis(unix_socket_path=str(operator.server.data_dir / "redis.sock")) as client:
        yield client


def configs(turn: str, count: int) -> dict[str, list[str]]:
    """Configs of `count` index terms, none of which occur in another turn."""
    return {f"k{key}": [f"{turn}{key}_{place}" for place in range(min(64, count - key))] for key in range(0, count, 64)}


def commands(redis: Redis) -> int:
    """How many commands Redis has executed, those of scripts included."""
    return sum(entry["calls"] for entry in redis.info("commandstats").values())


def test_a_write_of_more_terms_than_a_script_can_change_in_3_ms_gets_413(operator: Operator) -> None:
    api = operator.new_project()
    assert MAX_TERMS <= 1000
    for count in (MAX_TERMS + 1, 4096):
        response = api.call("POST", "/session", {"configs": configs("a", count)}, 413)
        assert (response.reason, response.msg) == ("configs_too_large", f"configs have more than {MAX_TERMS} index terms")
    api.close()


@pytest.mark.parametrize("method", ["put", "patch"])
def test_changing_every_term_takes_two_commands_per_term(operator: Operator, redis: Redis, method: str) -> None:
    api = operator.new_project()
    write = api.put if method == "put" else api.patch
    session_id = api.new(configs("a", MAX_TERMS))
    write(session_id, configs("b", MAX_TERMS))  # Redis has the script in its cache now
    before = commands(redis)
    write(session_id, configs("a", MAX_TERMS))
    assert MAX_TERMS < commands(redis) - before <= MOST_COMMANDS
    assert api.matching({"k0": ["a0_0"]}) == [session_id]
    assert api.matching({"k0": ["b0_0"]}) == []
    api.close()


def test_the_memory_of_one_session_in_redis_is_bounded(operator: Operator, redis: Redis) -> None:
    api = operator.new_project()
    before = redis.info("memory")["used_memory_dataset"]
    count = 8
    for turn in range(count):
        api.new(configs(f"{turn}x", MAX_TERMS))
    assert redis.info("memory")["used_memory_dataset"] - before < count * MOST_BYTES
    api.close()


def test_deleting_a_user_with_large_sessions_does_not_block_other_clients(operator: Operator, redis: Redis) -> None:
    api: Api = operator.new_project()
    for turn in range(20):
        api.new(configs(f"{turn}y", MAX_TERMS), user="alice")
    redis.config_resetstat()
    assert api.call("DELETE", "/user/alice").status == 200
    # Redis executes everything it has read from one connection before it reads another: so one session is deleted at a time.
    reads = redis.info("stats")["total_reads_processed"]
    assert reads >= 20
    assert api.ids() == []
    api.close()
