"""Lists of users: the size of a page is bounded, whatever the number of users."""

from redis import Redis

from tests.support.http import Api

USERS, PAGE = 30_000, 200
#: The most bytes of a page of users.
MAX_BYTES = 64 * 1024


def register(api: Api) -> list[str]:
    """Register users directly in Redis; returns them in the order of their registration."""
    names = [f"user-{number}" for number in range(USERS)]
    with Redis.from_url(api.server.redis_url) as redis:
        for first in range(0, USERS, 5000):
            members = {name: first + number + 1 for number, name in enumerate(names[first : first + 5000])}
            redis.zadd(f"scc:{{{api.project.slug}}}:users", members)
    return names


def test_a_list_of_users_is_paged_however_many_there_are(api: Api) -> None:
    names = register(api)
    for parameters in ({}, {"limit": 0}, {"limit": PAGE}, {"time_desc": "true"}):
        response = api.call("GET", "/user/ls", query=parameters)
        assert (len(response.data["items"]), response.data["has_more"], len(response.raw) < MAX_BYTES) == (PAGE, True, True)
    assert api.call("GET", "/user/ls", status=400, query={"limit": PAGE + 1}).reason == "bad_request"
    listed: list[str] = []
    query: dict[str, object] = {}
    while True:
        page = api.call("GET", "/user/ls", query=query).data
        listed += [user["identifier"] for user in page["items"]]
        if not page["has_more"]:
            break
        query = {"cursor": page["next_cursor"]}
    assert listed == names
