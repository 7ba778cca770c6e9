"""A key that was overwritten by hand: requests that meet it get 503 and one sentence, until a check has repaired it."""

from redis import Redis

from tests.support.http import Api


def test_a_list_over_an_index_key_of_the_wrong_type_gets_503(api: Api) -> None:
    name = api.new({"agent": "bot1"})
    prefix = f"scc:{{{api.project.slug}.0}}:"
    with Redis.from_url(api.server.redis_url) as redis:
        redis.delete(prefix + 'blocks:agent="bot1"')
        redis.set(prefix + 'blocks:agent="bot1"', "x")
        response = api.call("GET", "/session", status=503, query={"filter_by_configs": '{"agent":"bot1"}'})
        assert response.msg.startswith("the store is damaged")
        assert api.ids() == [name]
        redis.delete(prefix + "session:" + name)
        redis.set(prefix + "session:" + name, "x")
        assert api.ids() == []
        api.get(name, 503)
        # The fixtures that others share end with a whole store.
        redis.delete(prefix + "session:" + name, prefix + 'blocks:agent="bot1"')
