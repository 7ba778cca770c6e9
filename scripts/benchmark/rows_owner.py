"""What it costs a PATCH that its script first compares whose keys they are."""

import hashlib
from functools import partial
from statistics import median
from uuid import UUID

import orjson

from scripts.benchmark.bench import REQUESTS, Bench, create_request, patch_request
from scripts.benchmark.rows_requests import settings_document
from scripts.benchmark.statistics import Result
from scripts.lib.program import Failed
from service.configs.document import document
from service.configs.limits import Limits
from service.store.keys import Owner, Partition
from service.store.sessions import PATCH

_CALLS = 500  # a round trip
_COMPARISON = 'local refusal = disowned(prefix .. "state", ARGV[3], ARGV[4])\nif refusal then return refusal end\n'


def owner(bench: Bench) -> None:
    """PATCH beside what it would take without the comparison: both scripts in turn, by Redis's own account of its time."""
    one = bench.one
    ids = [str(UUID(int=(1 << 102) + number, version=4)) for number in range(REQUESTS // 2)]
    connection = bench.connection(one.origin)
    for number, session_id in enumerate(ids):
        connection.good(create_request(settings_document(number), session_id=session_id))
    requests = bench.requests("owner", [patch_request(each, _changes(number)) for number, each in enumerate(ids)])
    if PATCH.source.count(_COMPARISON) != 1:
        raise Failed("patch.lua does not compare its owner as this row expects")
    without = PATCH.source.replace(_COMPARISON, "")
    sides = {"with": PATCH.source, "without": without}
    for source in sides.values():
        one.redis.ask("SCRIPT", "LOAD", source)
    measured = bench.rounds(
        "PATCH without the comparison",
        {
            "request": lambda: 1e6 / bench.wrk(one.origin, requests).rate,
            **{name: partial(_script_micros, bench, source, ids) for name, source in sides.items()},
        },
    )
    added = [had - has for had, has in zip(measured["with"], measured["without"], strict=True)]
    less = [request - median(added) for request in measured["request"]]
    note = f"the script {median(measured['with']):.2f} µs, without {median(measured['without']):.2f} µs"
    bench.add(Result.compared("owner", measured["request"], less, "µs", note))


def _changes(number: int) -> dict[str, object]:
    return {"setting_04": f"changed {number % 50}", "setting_13": number % 50}


def _script_micros(bench: Bench, source: str, ids: list[str]) -> float:
    """Microseconds that Redis takes for one call of the script; every call changes two keys and their terms."""
    redis = bench.one.redis
    project_id = redis.ask("HGET", "scc:projects", "default").decode()
    partition, limits = Partition("default", 0, owner=Owner(project_id, 1)), Limits()
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    bounds: tuple[int, ...] = (limits.max_configs_bytes, limits.max_keys, limits.max_terms)
    before = _spent(bench)
    for turn in range(4):
        for first in range(0, len(ids), _CALLS):
            with redis.client.pipeline(transaction=False) as pipeline:
                for number, session_id in enumerate(ids[first : first + _CALLS], turn):
                    changes = document(_changes(number), orjson.dumps(_changes(number)), limits)
                    members = (part for member in changes.members for part in (member.key, member.value, member.terms))
                    arguments: tuple[str | bytes | int, ...] = (*partition.arguments, "", "", *bounds, *members)
                    pipeline.evalsha(sha, 1, partition.session(session_id), *arguments)
                replies = pipeline.execute()
            if any(reply[0] != b"ok" for reply in replies):
                raise Failed(f"patch.lua was refused: {replies[0]!r}")
    after = _spent(bench)
    return (after[1] - before[1]) / (after[0] - before[0])


def _spent(bench: Bench) -> tuple[int, int]:
    """Scripts called so far, and the microseconds they took."""
    stats = bench.one.redis.ask("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return int(stats["calls"]), int(stats["usec"])
