"""`backup`, `verify` and `restore` of the embedded Redis: what was acknowledged comes back, and no old ETag matches it."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis

from service.errors import StartupError, StoreUnavailable
from service.process import aof_format, backup
from service.process.redis_binaries import Server
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store import manifest
from service.store.record import Project
from service.store.upkeep import bootstrap
from tests.support.http import Api
from tests.support.redis_servers import BUNDLED_ONLY, EVERY_SERVER, WITHOUT_DIRECTORY
from tests.support.server import PATIENCE, Serving, clean_environment, run_command, until

KEY = "sk-ac-root-of-the-tests"
COUNT = 60


@pytest.fixture(params=EVERY_SERVER)
def program(request: pytest.FixtureRequest) -> str:
    """The server program of the embedded Redis."""
    return str(request.param)


@pytest.fixture
def servings() -> Iterator[list[Serving]]:
    """Servers to stop at the end."""
    servings: list[Serving] = []
    yield servings
    for serving in servings:
        if serving.process.poll() is None:
            serving.stop()


def start(servings: list[Serving], directory: Path, program: str) -> Serving:
    serving = Serving(directory, "--workers", "1", "--redis-server", program, SCC_ROOT_TOKEN="root-of-the-tests")
    servings.append(serving)
    return serving.wait_ready()


def api_of(serving: Serving) -> Api:
    return Api(serving.server(KEY), KEY, Project("default", ""))


def ask(*words: str, program: str) -> subprocess.CompletedProcess[str]:
    return run_command(*words, "--redis-server", program)


def succeeded(*words: str, program: str) -> str:
    result = ask(*words, program=program)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(*words: str, program: str) -> str:
    """The one line of an error."""
    result = ask(*words, program=program)
    assert (result.returncode, result.stdout) == (1, ""), result
    assert result.stderr.count("\n") == 1
    return result.stderr.strip()


def fill(api: Api) -> None:
    for number in range(COUNT):
        api.create(use_uuid=str(UUID(int=number)), user=f"u{number % 3}", configs={"n": number, "float": 1.50})


def answers(api: Api) -> dict[str, bytes]:
    """The bytes of every session, by its id."""
    return {name: api.get(name).raw for name in api.ids()}


def test_a_backup_comes_back_with_another_generation(tmp_path: Path, servings: list[Serving], program: str) -> None:
    data, restored, target = tmp_path / "data", tmp_path / "restored", tmp_path / "backup"
    serving = start(servings, data, program)
    api = api_of(serving)
    fill(api)
    before, name = answers(api), str(UUID(int=7))
    etags = [api.get(name).etag]
    output = succeeded("backup", str(target), "--data-dir", str(data), program=program)
    assert output.endswith(f"bytes, in backup {target}\n")
    assert succeeded("verify", str(target), program=program) == output.replace(f"{target}\n", f"{target} are undamaged\n")
    # After the backup, the session gets states that the restored store does not know.
    etags += [api.patch(name, {"n": number}).etag for number in range(4)]
    api.close()
    assert serving.stop() == 0

    output = succeeded("restore", str(target), "--data-dir", str(restored), program=program)
    generation = output.strip().removesuffix("-").rpartition(" ")[2]
    assert output == f"restored {target} to data directory {restored}; its ETags begin with {generation}-\n"
    assert sorted(path.name for path in restored.iterdir() if path.name in ("key-secret", "root-token")) == ["key-secret"]
    api = api_of(start(servings, restored, program))
    assert answers(api) == before
    assert api.get(name).etag == f'"{generation}-{etags[0][1:]}'
    for number in range(5):
        # The session has the revisions of the lost states again, with other configs.
        for etag in etags:
            api.patch(name, {"lost": 1}, 412, {"If-Match": etag})
            assert api.get(name, headers={"If-None-Match": etag}).status == 200
        current = api.get(name).etag
        assert api.get(name, 304, {"If-None-Match": f"{etags[0]}, W/{current}"}).etag == current
        written = api.patch(name, {"other": number}, headers={"If-Match": current}).etag
        assert written == api.get(name).etag != current
    assert api.send("POST", f"/session/{name}/copy", headers={"If-Match": etags[-1]}).status == 412
    api.delete(name, 412, {"If-Match": etags[-1]})
    api.delete(name, headers={"If-Match": written})
    api.close()
    checked = run_command("check", "--data-dir", str(restored))
    assert (checked.returncode, checked.stdout) == (0, "1 project checked: no differences\n")


@pytest.mark.parametrize("program", BUNDLED_ONLY, indirect=True)
def test_each_restore_has_a_generation_of_its_own(tmp_path: Path, servings: list[Serving], program: str) -> None:
    data, target = tmp_path / "data", tmp_path / "backup"
    assert start(servings, data, program).stop() == 0
    # Without a server, the directory is locked meanwhile.
    succeeded("backup", str(target), "--data-dir", str(data), program=program)
    outputs = [succeeded("restore", str(target), "--data-dir", str(tmp_path / f"{each}"), program=program) for each in range(3)]
    assert len({output.rpartition(" ")[2] for output in outputs}) == 3
    second = tmp_path / "second"
    succeeded("backup", str(second), "--data-dir", str(tmp_path / "0"), program=program)
    output = succeeded("restore", str(second), "--data-dir", str(tmp_path / "again"), program=program)
    assert output.rpartition(" ")[2] > max(each.rpartition(" ")[2] for each in outputs)


def test_a_backup_during_writes_has_what_was_acknowledged_before(tmp_path: Path, servings: list[Serving], program: str) -> None:
    data = tmp_path / "data"
    serving = start(servings, data, program)
    api, redis = api_of(serving), Redis(unix_socket_path=str(data / "redis.sock"))
    fill(api)
    session, is_done = api.new({"n": 0}), threading.Event()
    written = [0]

    def write() -> None:
        client = api_of(serving)
        while not is_done.is_set():
            client.put(session, {"n": written[-1] + 1, "wide": {f"k{each}": written[-1] for each in range(40)}})
            written.append(written[-1] + 1)
        client.close()

    writer = threading.Thread(target=write)
    writer.start()
    acknowledged = []
    try:
        for number in range(2):
            if number == 1:
                # It replaces the files, before or while they are copied.
                redis.bgrewriteaof()
            count = len(written)
            until(lambda count=count: len(written) > count + 5, "more writes")  # type: ignore[misc]
            acknowledged.append(written[-1])
            succeeded("backup", str(tmp_path / f"backup-{number}"), "--data-dir", str(data), program=program)
    finally:
        is_done.set()
        writer.join()
        redis.close()
        api.close()
    assert serving.stop() == 0
    for number, least in enumerate(acknowledged):
        target, restored = tmp_path / f"backup-{number}", tmp_path / f"restored-{number}"
        succeeded("verify", str(target), program=program)
        succeeded("restore", str(target), "--data-dir", str(restored), program=program)
        serving = start(servings, restored, program)
        api = api_of(serving)
        configs = api.get(session).data["configs"]
        assert configs["n"] >= least
        assert set(configs["wide"].values()) == {configs["n"] - 1}
        assert len(api.ids()) == COUNT + 1
        checked = run_command("check", "--data-dir", str(restored))
        assert (checked.returncode, checked.stdout) == (0, "1 project checked: no differences\n")
        api.close()
        assert serving.stop() == 0


@pytest.fixture
def finished(tmp_path: Path, servings: list[Serving], program: str) -> Path:
    """A backup of a small store."""
    serving = start(servings, tmp_path / "data", program)
    api = api_of(serving)
    fill(api)
    api.close()
    assert serving.stop() == 0
    succeeded("backup", str(tmp_path / "backup"), "--data-dir", str(tmp_path / "data"), program=program)
    return tmp_path / "backup"


def test_a_damaged_backup_is_neither_verified_nor_restored(tmp_path: Path, finished: Path, program: str) -> None:
    files = json.loads((finished / "backup.json").read_bytes())["files"]
    assert {file["name"].rpartition(".")[2] for file in files} >= {"json", "key-secret"}
    for number, file in enumerate(files):
        path = finished / "data" / file["name"]
        original = path.read_bytes()
        variants = (original[:-1] + bytes([original[-1] ^ 1]), original[:-1], original + b"\n") if original else (b"x",)
        path.write_bytes(variants[number % len(variants)])
        assert " is damaged" in refused("verify", str(finished), program=program)
        if number == 0:
            target = tmp_path / "restored"
            assert " is damaged" in refused("restore", str(finished), "--data-dir", str(target), program=program)
            assert sorted(path.name for path in target.iterdir()) == ["lock"]
        path.write_bytes(original)
    path.unlink()
    assert refused("verify", str(finished), program=program).endswith(" cannot be read: No such file or directory")
    (finished / "backup.json").unlink()
    sentence = f"{finished} is not a complete backup: it has no backup.json"
    assert refused("verify", str(finished), program=program) == sentence
    assert refused("restore", str(finished), "--data-dir", str(tmp_path / "other"), program=program) == sentence


def test_verify_finds_damage_that_the_digests_do_not_show(finished: Path, program: str) -> None:
    """The file was damaged before it was backed up."""
    entry = json.loads((finished / "backup.json").read_bytes())
    parts = aof_format.parts(finished / "data")
    path = parts[-1]
    damaged = path.read_bytes().replace(b"\r\nHSET\r\n", b"\r\nHSE\r\n", 1).replace(b"HSET", b"HSE", 1)
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    for file in entry["files"]:
        if file["name"] == path.relative_to(finished / "data").as_posix():
            file |= {"size": len(damaged), "sha256": backup._digest(path, lambda _: None)}
    (finished / "backup.json").write_text(json.dumps(entry), encoding="utf-8")
    assert f"{path} is damaged" in refused("verify", str(finished), program=program)


@pytest.mark.parametrize("program", BUNDLED_ONLY, indirect=True)
def test_nothing_is_overwritten(tmp_path: Path, finished: Path, program: str) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    message = refused("backup", str(finished), "--data-dir", str(data), program=program)
    assert message == f"{finished} exists; name a new directory"
    sentence = f"data directory {data} has a store; move it away, or name another directory"
    assert refused("restore", str(finished), "--data-dir", str(data), program=program) == sentence
    other.mkdir(mode=0o700)
    (other / "key-secret").write_text("another", encoding="utf-8")
    message = refused("restore", str(finished), "--data-dir", str(other), program=program)
    assert message == f"{other / 'key-secret'} is not that of the backup; move it away"
    assert sorted(path.name for path in other.iterdir()) == ["key-secret", "lock"]
    missing = tmp_path / "missing"
    message = refused("backup", str(tmp_path / "new"), "--data-dir", str(missing), program=program)
    assert message == f"there is no store in data directory {missing}"
    assert not (tmp_path / "new").exists()


async def test_an_earlier_release_does_not_start_on_a_restored_store(
    tmp_path: Path, finished: Path, servings: list[Serving], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would give ETags without the generation. Releases of layout 1 decide as this one does, with a lower number.

    The first of them read nothing but `layout`, and wanted exactly 1.
    """
    restored = tmp_path / "restored"
    succeeded("restore", str(finished), "--data-dir", str(restored), program=program)
    for directory in (restored, tmp_path / "data"):
        start(servings, directory, program)
    monkeypatch.setattr(manifest, "LAYOUT", 1)
    for directory, is_restored in ((restored, True), (tmp_path / "data", False)):
        settings = Settings(redis_url=f"unix://{directory / 'redis.sock'}", root_token="root-of-the-tests", key_secret="x")
        redis = RedisClient.open(settings.redis_url, timeout=10)
        try:
            assert (await redis.call("HGET", "scc:store", "layout") != b"1") == is_restored
            if is_restored:
                sentence = "^only releases with layout 2 or newer may read this store; this release has layout 1$"
                with pytest.raises(StartupError, match=sentence):
                    await bootstrap._prepare(settings)
                with pytest.raises(StartupError, match=sentence):
                    await manifest.settled_partitions(redis, writes=False)
                with pytest.raises(StoreUnavailable, match=sentence):
                    await manifest.confirm(redis, 1)
            else:
                await manifest.settled_partitions(redis)
                await manifest.confirm(redis, 1)
        finally:
            await redis.close()


@pytest.mark.parametrize("program", BUNDLED_ONLY, indirect=True)
def test_two_backups_to_one_name_are_one_that_is_whole(
    tmp_path: Path, finished: Path, servings: list[Serving], program: str
) -> None:
    data = finished.with_name("data")
    start(servings, data, program)
    words = ["backup", str(tmp_path / "new"), "--data-dir", str(data), "--redis-server", program]
    command, pipe = [sys.executable, "-m", "service", *words], subprocess.PIPE
    runs = [subprocess.Popen(command, env=clean_environment(), stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    outputs = [run.communicate(timeout=PATIENCE) for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1, 1, 1]
    assert sorted(error for _, error in outputs) == ["", *[f"{tmp_path / 'new'} exists; name a new directory\n"] * 3]
    succeeded("verify", str(tmp_path / "new"), program=program)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("program", WITHOUT_DIRECTORY, indirect=True)
def test_a_backup_of_redis_6_is_restored_by_a_newer_server(tmp_path: Path, finished: Path, servings: list[Serving]) -> None:
    newest = EVERY_SERVER[0].values[0]
    restored = tmp_path / "restored"
    succeeded("restore", str(finished), "--data-dir", str(restored), program=str(newest))
    api = api_of(start(servings, restored, str(newest)))
    assert len(api.ids()) == COUNT
    api.close()


def test_the_parts_of_a_copy_are_those_of_its_manifest(tmp_path: Path) -> None:
    """A rewrite that ends while the files are opened leaves the earlier ones in the manifest as history."""
    folder = tmp_path / "data" / "appendonlydir"
    folder.mkdir(parents=True)
    names = {"b": "appendonly.aof.2.base.rdb", "h": "appendonly.aof.1.incr.aof", "i": "appendonly.aof.2.incr.aof"}
    lines = [f"file {name} seq 1 type {kind}\n" for kind, name in names.items()]
    (folder / "appendonly.aof.manifest").write_text("".join(lines), encoding="utf-8")
    for kind in "bi":
        (folder / names[kind]).write_bytes(b"")
    server = Server(shutil.which("false") or "", "Redis", (7, 0))
    backup.write(tmp_path / "data", tmp_path / "backup", server, lambda _: None)
    copied = tmp_path / "backup" / "data" / "appendonlydir"
    assert sorted(path.name for path in copied.iterdir()) == [
        "appendonly.aof.2.base.rdb",
        "appendonly.aof.2.incr.aof",
        "appendonly.aof.manifest",
    ]
    assert (copied / "appendonly.aof.manifest").read_text(encoding="utf-8") == lines[0] + lines[2]
