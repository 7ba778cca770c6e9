"""The repair of misplaced sessions: each moves to the partition to which its id leads.

The service never reads a session in a partition to which its id does not lead, so nothing changes it while it moves. The two
partitions may be on different nodes: the copy is made before the original is removed, and a move that was interrupted is
completed by the next repair.
"""

from service.errors import LayoutChanged, StateIncomplete, Unauthorized
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.store import script_calls
from service.store.keys import Partition
from service.store.record import is_canonical_id

#: Fields of a session's hash at most; one with more was written manually.
MAX_FIELDS = 64


async def relocate(redis: RedisClient, source: Partition, target: Partition, session_id: str) -> bool:
    """Move a session from `source` to `target`, to which its id leads, without listing or indexing it there.

    Returns:
        Whether it was moved. It stays if another session has its key, or if it cannot be read.
    """
    source_key, target_key = source.session(session_id), target.session(session_id)
    if source_key == target_key or not is_canonical_id(session_id):
        return False
    try:
        fields = await redis.call("HGETALL", source_key)
        if not 0 < len(fields) <= 2 * MAX_FIELDS:
            return False
        call = script_calls.adopt_session(session=target_key, state=target.state, owner=target.owner, replace=0, fields=fields)
        is_copied = await call.run(redis)
        is_moved = is_copied or await redis.call("HGETALL", target_key) == fields
    except (WrongType, Unauthorized, LayoutChanged, StateIncomplete):
        return False
    if is_moved:
        await redis.batch(
            [("UNLINK", source_key), ("ZREM", source.sessions, session_id), ("ZREM", source.expiring, session_id)], writes=True
        )
    return is_moved
