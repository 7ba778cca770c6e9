"""What it costs a PATCH that its script first checks which project owns the partition."""

import re
from collections.abc import Sequence
from statistics import median
from uuid import UUID

from scripts.benchmark.filling import patch_call
from scripts.benchmark.load.requests import create_request, patch_request
from scripts.benchmark.rows.requests import settings_changes, settings_document
from scripts.benchmark.run import Bench
from scripts.benchmark.servers.redis import RedisProbe
from scripts.benchmark.statistics import Measurement
from scripts.lib.program import Failed
from service.redis_client.multiplexer import Command
from service.store import keys
from service.store.keys import Owner, Partition
from service.store.script_calls import patch

_CALLS, _BATCHES = 500, 40  # calls a batch, batches of each script a round
_CHECK = re.compile(
    r'^local (\w+) = \w+\(prefix \.\. "state", ARGV\[3\], ARGV\[4\]\)\nif \1 then return \1 end\n', re.MULTILINE
)


def owner(bench: Bench) -> dict[str, Measurement]:
    """PATCH against what it would take without the check: the request's time less what the check adds to its script."""
    service = bench.one_worker
    ids = [str(UUID(int=(1 << 102) + number, version=4)) for number in range(_CALLS)]
    connection = bench.connection(service.address)
    for number, session_id in enumerate(ids):
        connection.send_ok(create_request(settings_document(number), session_id=session_id))
    patches = [patch_request(session_id, settings_changes(number)) for number, session_id in enumerate(ids)]
    requests = bench.write_requests("owner", patches)
    source = patch.script.source
    without_check, removed = _CHECK.subn("", source)
    if removed != 1:
        raise Failed("patch.lua does not contain the check of the owner that the row `owner` removes")
    # The second script's values differ from the first's, so that each call changes both keys and their terms.
    calls = [_calls(service.redis, each, ids, turn) for turn, each in enumerate((source, without_check), 1)]
    pairs: list[tuple[float, float]] = []

    def added() -> float:
        batches = [(_batch(service.redis, calls[0]), _batch(service.redis, calls[1])) for _ in range(_BATCHES)]
        pairs.extend(batches)
        return median(checked - unchecked for checked, unchecked in batches)

    figures = bench.alternate(
        "PATCH without the owner check", {"request": lambda: 1e6 / bench.wrk(service.address, requests).rate, "added": added}
    )
    less = [request - check for request, check in zip(figures["request"], figures["added"], strict=True)]
    checked, unchecked = (median(times) for times in zip(*pairs, strict=True))
    note = f"the script {checked:.1f} µs, without {unchecked:.1f} µs; medians of {len(pairs)} pairs of batches"
    return {"owner": Measurement.compared(figures["request"], less, "µs", note)}


def _calls(redis: RedisProbe, source: str, ids: Sequence[str], turn: int) -> list[Command]:
    """A call of the script for each session."""
    sha = redis.execute("SCRIPT", "LOAD", source)
    project_id = redis.execute("HGET", keys.PROJECTS, "default").decode()
    partition = Partition("default", 0, owner=Owner(project_id, 1))
    calls = [patch_call(partition, session_id, settings_changes(number + turn)) for number, session_id in enumerate(ids)]
    return [("EVALSHA", sha, len(call.keys), *call.keys, *call.arguments) for call in calls]


def _batch(redis: RedisProbe, calls: Sequence[Command]) -> float:
    """Run a batch; returns Redis's own time for one call in microseconds."""
    before = redis.command_stat("evalsha", "usec")
    with redis.client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.execute_command(*call)  # type: ignore[no-untyped-call]  # redis-py leaves it so
        replies = pipeline.execute()
    if any(reply[0] != b"ok" for reply in replies):
        raise Failed(f"patch.lua failed: {replies[0]!r}")
    return (redis.command_stat("evalsha", "usec") - before) / len(calls)
