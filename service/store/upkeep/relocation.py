"""The repair of misplaced sessions: each moves to the partition to which its id leads.

The service never reads a session in a partition to which its id does not lead, so nothing changes it while it moves. The two
partitions may be on different nodes: the copy is made before the original is removed, and a move that was interrupted is
completed by the next repair.
"""

from uuid import UUID

from service.errors import LayoutChanged, StateIncomplete, Unauthorized
from service.redis_client.client import RedisClient
from service.redis_client.errors import WrongType
from service.store import scripts
from service.store.keys import Partition

ADOPT_SESSION = scripts.load("adopt_session")

#: Fields of a session's hash at most; one with more was made by hand.
MAX_FIELDS = 64


async def relocate(redis: RedisClient, found_in: Partition, target: Partition, session_id: str) -> bool:
    """Move a session from `found_in` to `target`, where its id leads to; it is not listed or indexed there yet.

    Returns:
        Whether it was moved. It stays where it is if another session has its place, or if it cannot be read.
    """
    old, new = found_in.session(session_id), target.session(session_id)
    if old == new or not _is_canonical(session_id):
        return False
    try:
        fields = await redis.call("HGETALL", old)
        if not 0 < len(fields) <= 2 * MAX_FIELDS:
            return False
        is_made = await ADOPT_SESSION.run(redis, (new, target.state), (*target.owner, *fields))
        is_moved = bool(is_made or await redis.call("HGETALL", new) == fields)
    except (WrongType, Unauthorized, LayoutChanged, StateIncomplete):
        return False
    if is_moved:
        await redis.batch(
            [("UNLINK", old), ("ZREM", found_in.sessions, session_id), ("ZREM", found_in.expiring, session_id)], writes=True
        )
    return is_moved


def _is_canonical(session_id: str) -> bool:
    """Whether a session with this id can be read over HTTP; another one was made by hand."""
    try:
        return str(UUID(session_id)) == session_id
    except ValueError:
        return False
