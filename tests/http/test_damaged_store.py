"""A key that was overwritten manually: requests that use it get 503 and one sentence, until a check has repaired it."""

from redis import Redis

from tests.support.http import Api


def test_a_list_over_an_index_key_of_the_wrong_type_gets_503(api: Api) -> None:
    session_id = api.new({"agent": "bot1"})
    prefix = f"scc:{{{api.project.slug}.0}}:"
    with Redis.from_url(api.server.redis_url) as redis:
        redis.delete(prefix + 'index:0:agent="bot1"')
        redis.set(prefix + 'index:0:agent="bot1"', "x")
        response = api.call("GET", "/session", status=503, query={"filter_by_configs": '{"agent":"bot1"}'})
        assert (response.reason, "damaged" in response.msg) == ("store_unavailable", True)
        assert api.ids() == [session_id]
        redis.delete(prefix + "session:" + session_id)
        redis.set(prefix + "session:" + session_id, "x")
        assert api.ids() == []
        api.get(session_id, 503)
        # The server is shared: leave no damage.
        redis.delete(prefix + "session:" + session_id, prefix + 'index:0:agent="bot1"')
