"""What it costs a PATCH that its script first compares whose keys they are."""

from collections.abc import Sequence
from statistics import median
from uuid import UUID

import orjson

from scripts.benchmark.rows.requests import settings_document
from scripts.benchmark.run import Bench, create_request, patch_request
from scripts.benchmark.statistics import Result
from scripts.lib.program import Failed
from service.configs.document import document
from service.configs.limits import Limits
from service.store import keys
from service.store.keys import Owner, Partition
from service.store.lane import Command
from service.store.sessions import PATCH

_CALLS, _BATCHES = 500, 40  # calls a batch, batches of a side a round
_COMPARISON = 'local refusal = disowned(prefix .. "state", ARGV[3], ARGV[4])\nif refusal then return refusal end\n'


def owner(bench: Bench) -> None:
    """PATCH beside what it would take without the comparison: both scripts in turn, by Redis's own account of its time."""
    one = bench.one
    ids = [str(UUID(int=(1 << 102) + number, version=4)) for number in range(_CALLS)]
    connection = bench.connection(one.origin)
    for number, session_id in enumerate(ids):
        connection.good(create_request(settings_document(number), session_id=session_id))
    requests = bench.requests("owner", [patch_request(each, _changes(number)) for number, each in enumerate(ids)])
    if PATCH.source.count(_COMPARISON) != 1:
        raise Failed("patch.lua does not compare its owner as this row expects")
    sources = (PATCH.source, PATCH.source.replace(_COMPARISON, ""))
    calls = [_calls(bench, source, ids, turn) for turn, source in enumerate(sources, 1)]
    pairs: list[tuple[float, float]] = []
    measured = bench.rounds(
        "PATCH without the comparison",
        {"request": lambda: 1e6 / bench.wrk(one.origin, requests).rate, "added": lambda: _added(bench, calls, pairs)},
    )
    less = [request - added for request, added in zip(measured["request"], measured["added"], strict=True)]
    compared, bare = (median(times) for times in zip(*pairs, strict=True))
    note = f"the script {compared:.1f} µs, without {bare:.1f} µs; medians of {len(pairs)} pairs of batches"
    bench.add(Result.compared("owner", measured["request"], less, "µs", note))


def _changes(number: int) -> dict[str, object]:
    return {"setting_04": f"changed {number % 50}", "setting_13": number % 50}


def _calls(bench: Bench, source: str, ids: list[str], turn: int) -> list[Command]:
    """Calls of the script `source`; after those of another turn, each changes two keys of a session and their terms."""
    redis = bench.one.redis
    sha = redis.ask("SCRIPT", "LOAD", source)
    project_id = redis.ask("HGET", keys.PROJECTS, "default").decode()
    partition, limits = Partition("default", 0, owner=Owner(project_id, 1)), Limits()
    bounds = (limits.max_configs_bytes, limits.max_keys, limits.max_terms)
    calls: list[Command] = []
    for number, session_id in enumerate(ids):
        values = _changes(number + turn)
        changes = document(values, orjson.dumps(values), limits)
        members = (part for member in changes.members for part in (member.key, member.value, member.terms))
        calls.append(("EVALSHA", sha, 1, partition.session(session_id), *partition.arguments, "", "", *bounds, *members))
    return calls


def _added(bench: Bench, sides: Sequence[Sequence[Command]], pairs: list[tuple[float, float]]) -> float:
    """What the first side takes longer than the second, in microseconds a call: the median of short batches in turn."""
    new = []
    for _ in range(_BATCHES):
        compared, bare = (_batch(bench, side) for side in sides)
        new.append((compared, bare))
    pairs += new
    return median(compared - bare for compared, bare in new)


def _batch(bench: Bench, calls: Sequence[Command]) -> float:
    """Microseconds of Redis's time that one of `calls` takes."""
    before = _spent(bench)
    with bench.one.redis.client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call)  # type: ignore[no-untyped-call]  # redis-py leaves it so
        replies = pipeline.execute()
    if any(reply[0] != b"ok" for reply in replies):
        raise Failed(f"patch.lua was refused: {replies[0]!r}")
    return (_spent(bench) - before) / len(calls)


def _spent(bench: Bench) -> int:
    """Microseconds that scripts have taken so far."""
    return int(bench.one.redis.ask("INFO", "commandstats").get("cmdstat_evalsha", {"usec": 0})["usec"])
