"""`redis-cli` without a redis-cli on PATH: a single command finds its node of a cluster, and the master behind Sentinels."""

from service.redis_client.cluster import slot_of
from service.store import keys
from tests.support.server import run_command
from tests.support.topology_servers import Cluster, Sentinels
from tests.topology.conftest import on_every_cluster


def redis_cli(url: str, *words: str) -> str:
    """What the command prints on standard output; it must succeed."""
    process = run_command("redis-cli", "--command-timeout", "30", *words, SCC_REDIS_URL=url, PATH="")
    assert (process.returncode, process.stderr) == (0, "")
    return process.stdout


@on_every_cluster
def test_a_command_goes_to_the_node_of_its_key_whichever_argument_the_key_is(cluster: Cluster) -> None:
    key_of = {cluster.owner(slot_of((), key)): key for key in map(str, range(20))}
    assert len(key_of) == 3
    for owner, key in key_of.items():
        assert redis_cli(cluster.url, "SET", key, f"of {key}") == "OK\n"
        assert owner.ask("GET", key) == f"of {key}"
        assert redis_cli(cluster.url, "OBJECT", "ENCODING", key) == "embstr\n"
        assert redis_cli(cluster.url, "eval", "return redis.call('GET', KEYS[1])", "1", key) == f"of {key}\n"
        assert redis_cli(cluster.url, "XADD", f"{{{key}}}", "1-1", "a", "b") == "1-1\n"
        assert redis_cli(cluster.url, "XREAD", "COUNT", "1", "STREAMS", f"{{{key}}}", "0") == f"{{{key}}}\n1-1\na\nb\n"


def test_keys_of_several_slots_are_refused_by_redis(cluster: Cluster) -> None:
    assert redis_cli(cluster.url, "MSET", "a", "1", "b", "2").startswith("CROSSSLOT ")


def test_a_command_without_a_key_goes_to_the_node_of_the_manifest(cluster: Cluster) -> None:
    node = cluster.owner(slot_of((), keys.STORE))
    assert redis_cli(cluster.url, "PING") == "PONG\n"
    assert redis_cli(cluster.url, "CONFIG", "GET", "port") == f"port\n{node.port}\n"
    node.ask("SET", keys.STORE, "a")
    assert redis_cli(cluster.url, "DBSIZE") == "1\n"
    assert redis_cli(cluster.url, "KEYS", "*") == f"{keys.STORE}\n"
    assert redis_cli(cluster.url, "SCAN", "0", "COUNT", "100") == f"0\n{keys.STORE}\n"


@on_every_cluster
def test_while_a_slot_migrates_a_command_follows_its_key(cluster: Cluster) -> None:
    stays, moves, new = "{a}:stays", "{a}:moves", "{a}:new"
    slot = slot_of((), stays)
    source = cluster.owner(slot)
    target = next(master for master in cluster.masters() if master is not source)
    for key in (stays, moves):
        redis_cli(cluster.url, "SET", key, key)
    cluster.begin_move(slot, target)
    cluster.move_keys(source, target, [moves])
    try:
        for key in (stays, moves):
            assert redis_cli(cluster.url, "GET", key) == f"{key}\n"
            assert redis_cli(cluster.url, "EVAL", "return redis.call('GET', KEYS[1])", "1", key) == f"{key}\n"
        assert redis_cli(cluster.url, "INCR", new) == "1\n"
        assert sorted(cluster.keys_of(slot, target)) == sorted([moves, new])
    finally:
        cluster.move_keys(source, target, cluster.keys_of(slot, source))
        cluster.end_move(slot, target)
    assert redis_cli(cluster.url, "INCR", new) == "2\n"


def test_behind_sentinels_a_command_goes_to_the_master(sentinels: Sentinels) -> None:
    port = sentinels.master().port
    assert redis_cli(sentinels.url, "SET", "a", "1") == "OK\n"
    assert redis_cli(sentinels.url, "CONFIG", "GET", "port") == f"port\n{port}\n"
    assert redis_cli(sentinels.url, "ROLE").startswith("master\n")
