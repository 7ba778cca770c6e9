"""The operations on lists of sessions, and on a client's own users."""

from types import NoneType
from urllib.parse import quote, urlencode
from uuid import UUID, uuid5

from tests.soak import lists
from tests.soak.client import Client, Unavailable
from tests.soak.ownership import UserModel
from tests.soak.states import Span, microseconds, now
from tests.support.http_client import Request, Violation
from tests.support.responses import Resources, User, UserPage, data


class UserOperations:
    """One client's. Each raises Unavailable where there is no response, and Violation where it is wrong."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = client.random

    async def list_sessions(self) -> None:
        """Any list of sessions, paged to the end."""
        client = self._client
        query = lists.Query.choose(self._random, client.users, client.living())
        rows, span = await lists.read_all(client, query)
        lists.check_against_model(query, rows, span, client.sessions.values(), client.orphans)

    async def list_users(self) -> None:
        """All users, paged to the end."""
        listed = {user.identifier for user in await all_users(self._client, self._random.choice((0, 5, 200)))}
        for user in self._client.users.values():
            user.check(user.name in listed, "in the list of users")

    async def count(self) -> None:
        """How many sessions a user has. If the user is indeterminate, only once a read can determine it."""
        user = self._random.choice(list(self._client.users.values()))
        if user.indeterminate_since is None or self._client.context.fault_windows.has_settled(user.indeterminate_since):
            await count_sessions(self._client, user)

    async def settle(self) -> None:
        """Ask for the users indeterminate of whom that may now tell."""
        for user in self._client.users.values():
            if user.indeterminate_since is not None and self._client.context.fault_windows.has_settled(
                user.indeterminate_since
            ):
                await count_sessions(self._client, user)

    async def delete(self) -> None:
        """Delete a user with all sessions."""
        client = self._client
        user = self._random.choice(list(client.users.values()))
        theirs = client.of_user(user.name)
        if user.indeterminate_since is not None or any(session.indeterminate_since is not None for session in theirs):
            return
        what = f"DELETE {user_path(user)}"
        try:
            response, _ = await client.send(Request("DELETE", user_path(user)), writes=True)
        except Unavailable as error:
            if error.uncertain:
                user.may_exist(exists=False)
                for session in theirs:
                    session.take_user_deletion(f"{what} → {error.how}", certain=False)
            raise
        data(response, NoneType)
        user.set_exists(exists=False)
        for session in theirs:
            session.take_user_deletion(f"{what} → {response.status}", certain=True)
        client.orphans = [orphan for orphan in client.orphans if orphan not in theirs]


def user_path(user: UserModel) -> str:
    """A user's path."""
    return "/user/" + quote(user.name, safe="")


async def count_sessions(client: Client, user: UserModel) -> None:
    """Compare the server's count of a user's sessions with the model.

    Raises:
        Violation: it counts otherwise.
    """
    start = now()
    response, _ = await client.send(Request("GET", user_path(user) + "/resources"))
    user.check(response.status != 404, "known to /resources")
    user.set_exists(response.status != 404)
    if response.status == 404:
        return
    count = data(response, Resources).counts.sessions_count
    span = Span(start, now())
    ownerships = [
        [state is not None and state.user == user.name for state in session.possible(span)]
        for session in client.of_user(user.name)
    ]
    minimum, maximum = sum(map(all, ownerships)), sum(map(any, ownerships))
    if not minimum <= count <= maximum:
        raise Violation(f"user {user.name!r} has {count} sessions, and should have {minimum} to {maximum}")


async def all_users(client: Client, limit: int) -> list[User]:
    """All users of the project, read in pages of `limit`, 0 for the largest.

    Raises:
        Violation: they are out of order, or not as they should be.
    """
    users: list[User] = []
    descending = client.random.random() < 0.5
    parameters = {"limit": str(limit), "time_desc": str(descending).lower()}
    while True:
        response, _ = await client.send(Request("GET", f"/user/ls?{urlencode(parameters)}"))
        page = data(response, UserPage)
        users += page.items
        if not page.has_more:
            break
        parameters["cursor"] = page.next_cursor or ""
    order = [microseconds(user.created_at) for user in users]
    if order != sorted(set(order), reverse=descending):
        raise Violation(f"users are out of order, or listed twice: {users}")
    if any(user.id != str(uuid5(UUID(user.project_id), user.identifier)) for user in users):
        raise Violation(f"users have wrong ids: {users}")
    return users
