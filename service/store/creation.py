"""Creating sessions: the steps that keep every session's user listed, whatever crashes, and leave no user behind."""

from service.configs.document import NULL, Document, check_size
from service.errors import (
    LayoutChanged,
    PreconditionFailed,
    SessionNotFound,
    StateIncomplete,
    StoreFull,
    Unauthorized,
    Unreadable,
)
from service.store.conditions import UNCONDITIONAL, Conditions
from service.store.sessions import Session
from service.store.users import Users


async def create_session(
    users: Users,
    session_id: str,
    document: Document | None,
    *,
    user: str | None,
    disable_task_tracking: bool,
    ttl: int | None,
    may_exist: bool,
    conditions: Conditions = UNCONDITIONAL,
) -> tuple[Session, bool]:
    """Create a session as `Sessions.create` does, and register its `user`.

    The user is registered before the session is created, for a crash must not leave a session whose user is not listed, and
    withdrawn if another session has the id or the create is refused. `may_exist`: the client chose the id, so it may be in use;
    `conditions` are then checked against the session that has it.

    Returns:
        The session, and whether it is new.

    Raises:
        PreconditionFailed: `conditions` do not hold for the session that has the id.
        ConfigsTooLarge: the configs are over the limit; nothing was written.
        StoreFull: there is no room for the session, or for its user.
        WriteUncertain: Redis is away; the session may exist.
    """
    sessions = users.sessions
    expected = None
    if user is not None:
        check_size(NULL if document is None else document.configs, sessions.limits)
        expected = await users.expect(user, session_id if may_exist else "")
    try:
        session, created = await sessions.create(
            session_id,
            document,
            user=user,
            disable_task_tracking=disable_task_tracking,
            ttl=ttl,
            conditions=conditions,
        )
    except (PreconditionFailed, SessionNotFound, Unreadable, Unauthorized, LayoutChanged, StateIncomplete, StoreFull):
        await _withdraw(users, user, expected)
        raise
    if not created:
        await _withdraw(users, user, expected)
    elif user is not None:
        await users.confirm(user)
    return session, created


async def _withdraw(users: Users, user: str | None, expected: int | None) -> None:
    if user is not None and expected is not None:
        await users.withdraw(user, expected)


async def copy_session(users: Users, session_id: str, new_id: str, conditions: Conditions = UNCONDITIONAL) -> Session:
    """Copy a session as `Sessions.copy` does; a user who was deleted meanwhile is registered again.

    Raises:
        SessionNotFound: there is no such session.
        PreconditionFailed: `conditions` do not hold for it.
        Unreadable: more than the configs of the stored session is corrupt.
        WriteUncertain: Redis is away; the copy may exist.
    """
    new = await users.sessions.copy(session_id, new_id, conditions)
    if new.user is not None:
        await users.confirm(new.user)
    return new
