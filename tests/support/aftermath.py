"""What must hold after every fault."""

import asyncio
from math import inf

from tests.support.server import Serving, run_command
from tests.support.workload import Storm

#: Seconds within which every answer must be there, whatever fails. Where a fault lasts, a command may take a second at most;
#: the rest is for a slow machine.
LONGEST = 10.0

#: A command timeout that nothing here comes near: where no request may fail, a slow machine must not be why one does.
LENIENT = ("--command-timeout", "15")

TOKEN = "storm-of-the-tests"
KEY = f"sk-ac-{TOKEN}"


async def hold(storm: Storm, serving: Serving, *, lost_after: float = inf) -> int:
    """Nothing acknowledged is missing (but for what was answered `lost_after`), the index is true, nobody was left waiting.

    Returns the number of writes that are missing.
    """
    assert storm.counts.longest < LONGEST, storm.counts
    lost = await storm.hold(serving.origin, lost_after=lost_after)
    where = {"SCC_DATA_DIR": str(serving.data_dir)}
    if serving.redis_url:
        where["SCC_REDIS_URL"] = serving.redis_url
    said = await asyncio.to_thread(run_command, "check", **where)
    assert said.stdout.splitlines()[-1] == "1 project checked: no differences", said.stdout + said.stderr
    return len(lost)
