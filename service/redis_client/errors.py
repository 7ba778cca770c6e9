"""The errors of Redis and of its client, for the modules above, which do not import `redis` themselves."""

from redis.exceptions import NoScriptError, RedisError, ResponseError

__all__ = ["NoScriptError", "RedisError", "ResponseError"]
