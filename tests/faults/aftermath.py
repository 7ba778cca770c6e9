"""What must hold after every fault."""

import asyncio
from math import inf

from tests.faults.storm import Storm
from tests.serving import Serving, run_command

#: Seconds beyond the command timeout within which every answer must be there: a slow machine changes no verdict.
SLACK = 8.0

TOKEN = "storm"
KEY = f"sk-ac-{TOKEN}"


async def hold(storm: Storm, serving: Serving, *, lost_after: float = inf, command_timeout: float = 1.0) -> int:
    """Nothing acknowledged is missing (but for what was answered `lost_after`), the index is true, nobody was left waiting.

    Returns the number of writes that are missing.
    """
    assert storm.counts.longest < command_timeout + SLACK, storm.counts
    lost = await storm.hold(serving.origin, lost_after=lost_after)
    where = {"SCC_DATA_DIR": str(serving.data_dir)}
    if serving.redis_url:
        where["SCC_REDIS_URL"] = serving.redis_url
    said = await asyncio.to_thread(run_command, "check", **where)
    assert said.stdout.splitlines()[-1] == "0 differences in 1 projects; 0 mended", said.stdout + said.stderr
    return len(lost)
