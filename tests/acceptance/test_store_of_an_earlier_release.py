"""A store that an earlier release wrote is read by this one: every answer is the same, to the byte.

`store-of-0.1.0.aof` was written by version 0.1.0 on Redis 6.2, with four partitions: a rewritten base, then commands. It has
four projects (one with a default lifetime and a rotated key), every kind of value, terms that overflow, sessions in three
blocks, sessions that were patched, replaced, copied or deleted, or have expired, users without sessions, and a create that a
crash left undecided. `store-of-0.1.0.json` has what 0.1.0 answered over that file, and its keyspace. Some sessions live for ten
years: from November 2036 on the answers without them are others.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from service.store.record import Project
from tests.support.http import Api
from tests.support.redis_servers import EVERY_SERVER
from tests.support.server import Serving, run_command

FILES = Path(__file__).parents[1] / "support"
EXPECTED = json.loads((FILES / "store-of-0.1.0.json").read_text(encoding="utf-8"))
#: Kinds of hashes with fixed field names; the fields of the others are slugs and users.
HASHES = ("store", "project", "token", "state", "session")
SECRETS = {"SCC_ROOT_TOKEN": "root-of-an-earlier-release", "SCC_KEY_SECRET": "secret-of-an-earlier-release"}


@pytest.fixture(params=EVERY_SERVER)
def serving(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Serving]:
    """A server on a copy of that store."""
    directory = tmp_path / "data"
    directory.mkdir()
    shutil.copy(FILES / "store-of-0.1.0.aof", directory / "appendonly.aof")
    flags = ("--workers", "1", "--partitions", "4", "--redis-server", request.param)
    serving = Serving(directory, *flags, **SECRETS).wait_ready()
    yield serving
    assert serving.stop() == 0, serving.errors
    assert serving.errors == ""


@pytest.fixture
def apis(serving: Serving) -> Iterator[dict[str, Api]]:
    """One API for each key that 0.1.0 made, revoked ones included."""
    apis = {name: Api(serving.server(key), key, Project(name, "")) for name, key in EXPECTED["keys"].items()}
    yield apis
    for api in apis.values():
        api.close()


def answer(api: Api, path: str) -> dict[str, Any]:
    """The answer to a GET in the form of the file of answers: of an error, the status and the reason."""
    answer = api.send("GET", path)
    if answer.status != 200:
        return {"status": answer.status, "reason": answer.reason}
    etag = {"etag": answer.etag} if "ETag" in answer.headers else {}
    return {"status": 200} | etag | {"body": answer.raw.decode()}


def command(serving: Serving, *words: str) -> str:
    """The output of a command on the store, which must succeed."""
    result = run_command(*words, "--data-dir", str(serving.data_dir), **SECRETS)
    assert result.returncode == 0, result.stderr
    return result.stdout


def keyspace(serving: Serving) -> set[str]:
    """The names in the store: `kind: type` of each key, and `kind: field` of the hashes with fixed fields."""
    names = set()
    with Redis.from_url(f"unix://{serving.data_dir / 'redis.sock'}", decode_responses=True) as client:
        for key in client.scan_iter(count=1000):
            kind = re.sub(r"^scc:(\{.*?\}:)?", "", key).partition(":")[0]
            if (type_ := client.type(key)) != "none":  # the lease of the sweep expires
                names.add(f"{kind}: {type_}")
            if kind in HASHES:
                names |= {f"{kind}: {field}" for field in client.hkeys(key)}
    return names


def test_every_answer_equals_that_of_the_earlier_release(serving: Serving, apis: dict[str, Api]) -> None:
    for expected in EXPECTED["answers"]:
        key, path = expected["key"], expected["path"]
        assert {"key": key, "path": path} | answer(apis[key], path) == expected
    assert command(serving, "project", "list") == EXPECTED["projects"]
    assert command(serving, "check") == "4 projects checked: no differences\n"


def test_every_list_equals_that_of_the_earlier_release(apis: dict[str, Api]) -> None:
    for expected in EXPECTED["lists"]:
        page = apis[expected["key"]].call("GET", expected["path"]).data
        assert [session["id"] for session in page["items"]] == expected["ids"], expected["path"]
        assert not page["has_more"]


def test_pages_put_partitions_and_blocks_in_the_order_of_creation(apis: dict[str, Api]) -> None:
    for name in ("default", "acme", "rotated"):
        newest_first = next(row["ids"] for row in EXPECTED["lists"] if row["key"] == name and "time_desc" in row["path"])
        assert apis[name].ids(limit=1) == newest_first[::-1]


@pytest.mark.parametrize("name", ["default", "acme", "rotated"])
def test_writes_of_this_release_keep_the_index_and_the_kinds_of_keys(serving: Serving, apis: dict[str, Api], name: str) -> None:
    api = apis[name]
    for number, session in enumerate(api.page(limit=200)["items"]):
        write = (api.patch, api.put)[number % 2]
        write(session["id"], {"agent": "new", "wide": number}, headers={"If-Match": api.get(session["id"]).etag})
        assert api.get(session["id"]).data["revision"] == session["revision"] + 1
    ids = api.ids()
    assert api.matching({"agent": "new"}) == ids
    assert api.matching({"agent": "bot1"}) == []
    newest = api.create(user="new", configs={"agent": "newest", "list": [1]}, disable_task_tracking=True)
    assert api.ids() == [*ids, newest["id"]]
    # This project's configs have a default TTL.
    assert (newest["expires_at"] is not None) == (name == "rotated")
    api.delete(ids[-1])
    api.call("DELETE", "/user/alice%40example%2Ecom")
    assert api.ids(user="alice@example.com") == []
    assert command(serving, "check") == "4 projects checked: no differences\n"
    assert keyspace(serving) - set(EXPECTED["keyspace"]) == set()
