"""Creating sessions: the steps that keep every session's user listed, whatever crashes, and leave no user behind."""

from service.configs.document import NULL, Document, check_size
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
) -> tuple[Session, bool]:
    """Create a session as `Sessions.create` does, and register its `user`.

    The user is registered before the session is created, for a crash must not leave a session whose user is not listed, and
    withdrawn if another session has the id. `may_exist`: the client chose the id, so it may be in use.

    Returns:
        The session, and whether it is new.

    Raises:
        ConfigsTooLarge: the configs are over the limit; nothing was written.
        WriteUncertain: Redis is away; the session may exist.
    """
    sessions = users.sessions
    expected = None
    if user is not None:
        check_size(NULL if document is None else document.configs, sessions.limits)
        expected = await users.expect(user, session_id if may_exist else "")
    session, created = await sessions.create(
        session_id, document, user=user, disable_task_tracking=disable_task_tracking, ttl=ttl
    )
    if user is not None and created:
        await users.confirm(user)
    elif user is not None and expected is not None:
        await users.withdraw(user, expected)
    return session, created


async def copy_session(users: Users, session_id: str, new_id: str) -> Session:
    """Copy a session as `Sessions.copy` does; a user who was deleted meanwhile is registered again.

    Raises:
        SessionNotFound: there is no such session.
        Unreadable: more than the configs of the stored session is corrupt.
        WriteUncertain: Redis is away; the copy may exist.
    """
    new = await users.sessions.copy(session_id, new_id)
    if new.user is not None:
        await users.confirm(new.user)
    return new
