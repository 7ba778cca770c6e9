"""The operations on lists of sessions, and on a client's own users."""

from types import NoneType
from urllib.parse import quote, urlencode
from uuid import UUID, uuid5

from tests.soak import lists
from tests.soak.answers import Resources, User, UserPage, data
from tests.soak.client import Client
from tests.soak.differences import Difference
from tests.soak.owned import OwnUser
from tests.soak.states import Span, microseconds, now
from tests.soak.wire import Request, Unavailable


class UserOperations:
    """One client's. Each raises Unavailable where there is no answer, and Difference where it is wrong."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = client.random

    async def list_sessions(self) -> None:
        """Any list of sessions, paged to the end."""
        client = self._client
        query = lists.Query.choose(self._random, client.users, client.living())
        rows, span = await lists.walk(client, query)
        lists.hold_to_model(query, rows, span, client.sessions.values(), client.strays)

    async def list_users(self) -> None:
        """All users, paged to the end."""
        shown = {user.identifier for user in await all_users(self._client, self._random.choice((0, 5, 200)))}
        for user in self._client.users.values():
            user.hold(user.name in shown, "in the list of users")

    async def count(self) -> None:
        """How many sessions a user has; of one in doubt, once that can tell whether they are known."""
        user = self._random.choice(list(self._client.users.values()))
        if user.doubted is None or self._client.world.weather.has_settled(user.doubted):
            await count_sessions(self._client, user)

    async def settle(self) -> None:
        """Ask for the users in doubt of whom that may now tell."""
        for user in self._client.users.values():
            if user.doubted is not None and self._client.world.weather.has_settled(user.doubted):
                await count_sessions(self._client, user)

    async def delete(self) -> None:
        """Delete a user with all sessions."""
        client = self._client
        user = self._random.choice(list(client.users.values()))
        theirs = client.of_user(user.name)
        if user.doubted is not None or any(session.doubted is not None for session in theirs):
            return
        what = f"DELETE {user_path(user)}"
        try:
            answer, _ = await client.ask(Request("DELETE", user_path(user)), writes=True)
        except Unavailable as missing:
            if missing.uncertain:
                user.may_be(known=False)
                for session in theirs:
                    session.gone(f"{what} → {missing.how}", surely=False)
            raise
        data(answer, NoneType)
        user.is_now(known=False)
        for session in theirs:
            session.gone(f"{what} → {answer.status}", surely=True)
        client.strays = [stray for stray in client.strays if stray not in theirs]


def user_path(user: OwnUser) -> str:
    """A user's path."""
    return "/user/" + quote(user.name, safe="")


async def count_sessions(client: Client, user: OwnUser) -> None:
    """Hold what the server counts for a user to what is known of their sessions.

    Raises:
        Difference: it counts otherwise.
    """
    start = now()
    answer, _ = await client.ask(Request("GET", user_path(user) + "/resources"))
    user.hold(answer.status != 404, "known by what they have")
    user.is_now(answer.status != 404)
    if answer.status == 404:
        return
    count = data(answer, Resources).counts.sessions_count
    span = Span(start, now())
    belongs = [
        [state is not None and state.user == user.name for state in session.possible(span)]
        for session in client.of_user(user.name)
    ]
    least, most = sum(map(all, belongs)), sum(map(any, belongs))
    if not least <= count <= most:
        raise Difference(f"user {user.name!r} has {count} sessions, and should have {least} to {most}")


async def all_users(client: Client, limit: int) -> list[User]:
    """All users of the project, read in pages of `limit`, 0 for the largest.

    Raises:
        Difference: they are out of order, or not as they should be.
    """
    users: list[User] = []
    descending = client.random.random() < 0.5
    said = {"limit": str(limit), "time_desc": str(descending).lower()}
    while True:
        answer, _ = await client.ask(Request("GET", f"/user/ls?{urlencode(said)}"))
        page = data(answer, UserPage)
        users += page.items
        if not page.has_more:
            break
        said["cursor"] = page.next_cursor or ""
    order = [microseconds(user.created_at) for user in users]
    if order != sorted(set(order), reverse=descending):
        raise Difference(f"users are out of order, or shown twice: {users}")
    if any(user.id != str(uuid5(UUID(user.project_id), user.identifier)) for user in users):
        raise Difference(f"users have wrong ids: {users}")
    return users
