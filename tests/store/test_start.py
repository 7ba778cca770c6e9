"""The start: each reason why Redis cannot be used has a message, and the start waits for temporary ones to end."""

import asyncio
import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import hiredis
import pytest
from redis import Redis

from service.errors import StartupError
from service.settings import Settings
from service.store import keys
from service.store.upkeep import bootstrap
from tests.redis_client.test_tls import CERTIFICATE
from tests.support.filling import with_every_server
from tests.support.server import Serving, request, until
from tests.support.topology_servers import _IN_MEMORY, HOST, Server

#: No message and no log may show it.
PASSWORD = "hunter2"
BINARIES = [case.values[0] for case in with_every_server.args[1]]
NEWEST = BINARIES[-1]
#: Long enough to cause no warning.
SECRETS = {"SCC_ROOT_TOKEN": "root-of-the-tests", "SCC_KEY_SECRET": "secret-of-the-tests"}


def settings_for(url: str, **other: Any) -> Settings:  # noqa: ANN401 - settings differ
    given: dict[str, Any] = {"start_timeout": 0.0, "command_timeout": 2.0, "root_token": "root", "key_secret": "secret"}
    return Settings(redis_url=url, **(given | other))


def refusal(url: str, **other: Any) -> str:  # noqa: ANN401 - settings differ
    """The message of a start that is refused."""
    with pytest.raises(StartupError) as caught:
        bootstrap.prepare(settings_for(url, **other))
    sentence = str(caught.value)
    assert PASSWORD not in sentence
    assert HOST not in sentence
    return sentence


@pytest.fixture(scope="module", params=BINARIES)
def redis(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("redis"), request.param)
    yield server
    server.stop()


@contextmanager
def one(directory: Path, *settings: str, binary: str = NEWEST) -> Iterator[Server]:
    server = Server(directory, binary, (*_IN_MEMORY, *settings))
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://127.0.0.1:1", "nothing is listening at the address in redis_url"),
        ("redis+cluster://127.0.0.1:1", "nothing is listening at the address in redis_url"),
        ("redis+sentinel://127.0.0.1:1/store", "nothing is listening at the address in redis_url"),
        ("unix:///nowhere/redis.sock", "the socket in redis_url does not exist"),
        ("redis://no-such-host.invalid", "the host name in redis_url cannot be resolved"),
    ],
)
def test_the_message_for_an_unreachable_address(url: str, sentence: str) -> None:
    assert refusal(url) == sentence


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://:hunter2@{}", "redis_url has a password, but Redis has none set"),
        ("redis://nobody:hunter2@{}", "Redis rejects the user name or password in redis_url"),
        ("redis://{}/99", "Redis has no database with the number in redis_url"),
        ("redis+cluster://{}", "redis_url names a Redis Cluster, but the server is not in one; write redis:// instead of "
         "redis+cluster://"),
        ("redis+sentinel://{}/store", "redis_url names Sentinels, but the server is not one: SENTINEL"),
    ],
)  # fmt: skip
def test_the_message_for_a_url_that_does_not_match_the_server(redis: Server, url: str, sentence: str) -> None:
    assert refusal(url.format(f"{HOST}:{redis.port}")) == sentence


def test_the_message_for_a_missing_or_wrong_password(redis: Server) -> None:
    redis.ask("CONFIG", "SET", "requirepass", "right")
    try:
        assert refusal(f"redis://{HOST}:{redis.port}") == "Redis requires a password, but redis_url has none"
        wrong = f"redis://:{PASSWORD}@{HOST}:{redis.port}"
        assert refusal(wrong) == "Redis rejects the user name or password in redis_url"
    finally:
        with Redis(host=HOST, port=redis.port, password="right") as client:
            client.config_set("requirepass", "")


@pytest.mark.parametrize(
    ("rules", "missing"),
    [
        (("~scc:*", "+@all", "-@scripting"), ": EVALSHA"),
        (("~scc:*", "+@all", "-evalsha"), ": EVALSHA"),
        (("~scc:*", "+@all", "-eval"), ": EVAL"),
        (("~scc:*", "+@all", "-zrevrange", "-time"), ": TIME, ZREVRANGE in scripts"),
        (("~scc:*", "+@all", "-hscan"), ": HSCAN"),
        (("~scc:*", "+@all", "-client"), ": CLIENT"),
    ],
)
def test_the_message_names_missing_permissions(redis: Server, rules: tuple[str, ...], missing: str) -> None:
    redis.ask("ACL", "SETUSER", "scc", "reset", "on", "nopass", *rules)
    sentence = refusal(f"redis://scc:x@{HOST}:{redis.port}").partition("|")[0]
    assert sentence == f"the user in redis_url lacks permissions in Redis{missing}"
    assert redis.ask("KEYS", "*preflight*") == []


def test_the_message_for_inaccessible_keys(redis: Server) -> None:
    redis.ask("ACL", "SETUSER", "scc", "reset", "on", "nopass", "~other:*", "+@all")
    sentence = refusal(f"redis://scc:x@{HOST}:{redis.port}")
    assert sentence == "the user in redis_url may not access the keys scc:* in Redis"


@pytest.mark.parametrize("binary", BINARIES)
@pytest.mark.parametrize(("command", "where"), [("EVALSHA", ""), ("SINTER", " in scripts"), ("HSCAN", "")])
def test_the_message_for_a_renamed_command(tmp_path: Path, binary: str, command: str, where: str) -> None:
    with one(tmp_path, "--rename-command", command, "", binary=binary) as server:
        sentence = refusal(f"redis://{HOST}:{server.port}")
    assert sentence == f"Redis does not know or does not allow a required command: {command}{where}"


def test_the_start_succeeds_without_permission_for_info(redis: Server) -> None:
    redis.ask("ACL", "SETUSER", "scc", "reset", "on", "nopass", "~scc:*", "+@all", "-info")
    bootstrap.prepare(settings_for(f"redis://scc:x@{HOST}:{redis.port}"))
    redis.ask("FLUSHALL")


def test_the_message_for_a_server_at_its_maxclients(redis: Server) -> None:
    redis.ask("CONFIG", "SET", "maxclients", 1)
    try:
        assert refusal(f"redis://{HOST}:{redis.port}") == "Redis accepts no more connections; see its maxclients"
    finally:
        redis.ask("CONFIG", "SET", "maxclients", 1000)


def test_the_messages_for_a_replica_with_and_without_its_master(redis: Server) -> None:
    url = f"redis://{HOST}:{redis.port}"
    redis.ask("REPLICAOF", HOST, 1)
    try:
        assert refusal(url) == "redis_url points to a read-only replica"
        redis.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
        assert refusal(url) == "redis_url points to a replica that has lost its master"
    finally:
        redis.ask("REPLICAOF", "NO", "ONE")
        redis.ask("CONFIG", "SET", "replica-serve-stale-data", "yes")


def test_the_messages_for_a_server_that_refuses_writes(redis: Server) -> None:
    url = f"redis://{HOST}:{redis.port}"
    for name, value, sentence in (
        ("min-replicas-to-write", 1, "Redis refuses writes: it has fewer replicas than its min-replicas-to-write"),
        ("maxmemory", 1, "Redis is out of memory; see its maxmemory"),
    ):
        redis.ask("CONFIG", "SET", name, value)
        try:
            assert refusal(url) == sentence
        finally:
            redis.ask("CONFIG", "SET", name, 0)


def test_the_messages_for_an_incomplete_cluster(tmp_path: Path) -> None:
    with one(tmp_path, "--cluster-enabled", "yes") as node:
        plain = refusal(f"redis://{HOST}:{node.port}")
        assert plain.startswith("the Redis Cluster is down")
        assert plain.endswith("write redis+cluster:// instead of redis://")
        assert refusal(f"redis+cluster://{HOST}:{node.port}") == "the Redis Cluster has slots that no node serves"


#: What a server answers to each chunk it receives, and to a new connection (None); "" closes the connection.
Answers = Callable[[bytes | None], bytes | None]


@contextmanager
def fake_server(answers: Answers, *, tls: bool = False) -> Iterator[int]:
    """A server that is not Redis, in a thread; yields its port."""
    loop = asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            data: bytes | None = None
            while True:
                if (answer := answers(data)) is not None:
                    writer.write(answer)
                if answer == b"" or data == b"":
                    break
                data = await reader.read(65536)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()  # does not wait for the client's end of TLS

    async def run() -> asyncio.Server:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
        return await asyncio.start_server(serve, HOST, 0, ssl=context)

    async def end(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # Lets unfinished handshakes see that their clients are gone. Python 3.11 does not wait for them.
        await server.wait_closed()
        await asyncio.sleep(0.05)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(run(), loop).result()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def always(answer: bytes) -> Answers:
    return lambda data: answer if data else None


def replies(name: bytes, answer: bytes) -> Answers:
    """Answer `answer` to the command `name`, and OK to every other."""

    def answer_all(data: bytes | None) -> bytes | None:
        reader = hiredis.Reader()
        reader.feed(data or b"")
        replies = b""
        while (words := reader.gets()) is not False:
            replies += answer if words[0] == name else b"+OK\r\n"
        return replies or None

    return answer_all


NOT_TLS = "the server in redis_url does not speak TLS; write redis:// instead of rediss://"


@pytest.mark.parametrize(
    ("answers", "tls", "url", "sentence"),
    [
        (always(b"HTTP/1.1 400 Bad Request\r\n\r\n"), False, "redis://{}", "the server in redis_url is not Redis"),
        (always(b"HTTP/1.1 400 Bad Request\r\n\r\n"), False, "rediss://{}", NOT_TLS),
        (always(b"-DENIED Redis is running in protected mode because\r\n"), False, "redis://{}",
         "Redis is in protected mode: set a password, or let it listen on a private address"),
        (always(b"-LOADING Redis is loading the dataset in memory\r\n"), False, "redis://{}",
         "Redis is still loading its data"),
        (replies(b"EVALSHA", b"-MOVED 5 127.0.0.1:7001\r\n"), False, "redis://{}",
         "redis_url points to a node of a Redis Cluster; write redis+cluster:// instead of redis://"),
        (lambda data: None if data is None else b"", False, "redis://{}", "the server in redis_url closes connections before "
         "it answers; if it expects TLS, write rediss:// instead of redis://"),
        (lambda _: None, False, "redis://{}", "no connection to the address in redis_url within command_timeout"),
        (lambda _: None, False, "rediss://{}", "no connection to the address in redis_url within command_timeout; if "
         "the server does not speak TLS, write redis:// instead of rediss://"),
        (always(b"\x15\x03\x01\x00\x02\x02\x46"), False, "redis://{}",
         "the server in redis_url expects TLS; write rediss:// instead of redis://"),
        (always(b"+OK\r\n"), True, "rediss://{}", "the certificate of the server in redis_url cannot be verified"),
        (replies(b"SENTINEL", b"*-1\r\n"), False,
         "redis+sentinel://{}/store", "the Sentinels in redis_url know no master of the name in redis_url"),
        (replies(b"INFO", b"$32\r\n# Server\r\nredis_version:6.0.16\r\n\r\n"), False, "redis://{}",
         "Redis is 6.0; 6.2 or newer is needed"),
    ],
    ids=["HTTP", "HTTP for TLS", "DENIED", "LOADING", "MOVED", "hangs up", "silent", "silent TLS", "TLS alert", "certificate",
         "unknown master", "too old"],
)  # fmt: skip
def test_the_message_for_a_server_that_is_not_a_usable_redis(answers: Answers, tls: bool, url: str, sentence: str) -> None:
    with fake_server(answers, tls=tls) as port:
        assert refusal(url.format(f"{HOST}:{port}")) == sentence


def test_a_certificate_of_a_trusted_authority_is_accepted() -> None:
    option = f"?ssl_ca_certs={quote(str(CERTIFICATE))}"
    with fake_server(always(b"-WRONGPASS invalid username-password pair\r\n"), tls=True) as port:
        url = f"rediss://:{PASSWORD}@{HOST}:{port}{option}"
        assert refusal(url) == "Redis rejects the user name or password in redis_url"


def test_the_start_waits_for_a_temporary_problem_and_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with one(tmp_path) as server:
        server.ask("REPLICAOF", HOST, 1)
        promote = threading.Timer(1.0, lambda: server.ask("REPLICAOF", "NO", "ONE"))
        promote.start()
        with caplog.at_level(logging.WARNING):
            bootstrap.prepare(settings_for(f"redis://{HOST}:{server.port}", start_timeout=60.0, command_timeout=1.0))
        promote.join()
        assert server.ask("HGET", keys.STORE, "partitions") == "1"
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("waiting up to")]
    assert [line.partition(": ")[2] for line in lines] == ["redis_url points to a read-only replica"]


def test_a_permanent_problem_ends_the_start_without_a_wait(redis: Server, caplog: pytest.LogCaptureFixture) -> None:
    url = f"redis://nobody:{PASSWORD}@{HOST}:{redis.port}"
    # If the start waited, this test would never end.
    assert "rejects" in refusal(url, start_timeout=1e9)
    assert caplog.records == []


def test_the_wait_ends_when_its_caller_gives_up() -> None:
    calls = 0

    def give_up() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    bootstrap.prepare(settings_for("redis://127.0.0.1:1", start_timeout=1e9), give_up)
    assert calls == 4


def test_sigterm_ends_a_server_that_waits_for_redis(tmp_path: Path) -> None:
    variables = {"SCC_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:1", **SECRETS}
    serving = Serving(tmp_path / "data", "--start-timeout", "100000", **variables)
    until(lambda: "s for Redis: " in serving.errors, "a server that waits")
    assert serving.stop() == 0
    assert serving.output == ""
    assert "nothing is listening at the address in redis_url" in serving.errors
    assert PASSWORD not in serving.errors


def test_a_refused_start_ends_with_a_message_of_one_line(tmp_path: Path, redis: Server) -> None:
    variables = {"SCC_REDIS_URL": f"redis://u:{PASSWORD}@{HOST}:{redis.port}", **SECRETS}
    serving = Serving(tmp_path / "data", **variables)
    assert serving.process.wait(60) == 1
    assert serving.errors == "Redis rejects the user name or password in redis_url\n"


@pytest.mark.parametrize("binary", BINARIES)
def test_a_permission_revoked_later_is_503_and_nothing_of_the_request_is_logged(tmp_path: Path, binary: str) -> None:
    with one(tmp_path, binary=binary) as server:
        rules = ("on", "nopass", "~scc:*", "+@all")
        server.ask("ACL", "SETUSER", "scc", "reset", *rules)
        url = f"redis://scc:x@{HOST}:{server.port}"
        serving = Serving(tmp_path / "data", "--workers", "1", SCC_REDIS_URL=url, **SECRETS)
        serving.wait_ready()
        base, key = serving.base_url, "sk-ac-root-of-the-tests"
        status, answer = request("POST", f"{base}/session", key, {"configs": {"a": 1}})
        assert status == 201
        path = f"{base}/session/{answer['data']['id']}/configs"
        rights = ("-evalsha", "-time", "-hset", "-hmget")
        for right in rights:
            server.ask("ACL", "SETUSER", "scc", "reset", *rules, right)
            status, answer = request("PATCH", path, key, {"configs": {PASSWORD: PASSWORD}})
            assert status == 503, (right, answer)
            assert "redis" not in str(answer).lower()
        # The script fails in the middle: its writes before that stay.
        server.ask("ACL", "SETUSER", "scc", "reset", *rules, "-sadd")
        status, answer = request("PATCH", path, key, {"configs": {PASSWORD: PASSWORD}})
        assert (status, answer["error"]) == (503, "the write may or may not have happened")
        server.ask("ACL", "SETUSER", "scc", "reset", *rules)
        assert request("GET", path, key)[0] == 200
        assert serving.stop() == 0
        assert PASSWORD not in serving.errors
        assert "Traceback" not in serving.errors
