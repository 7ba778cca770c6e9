"""API keys of projects. A key is shown once; Redis stores only its keyed hash."""

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from service.errors import Unauthorized
from service.redis_client.client import RedisClient
from service.store import keys, manifest
from service.store.record import Project

KEY_PREFIX = "sk-ac-"
#: Seconds for which a worker caches the look-up of an API key; a revoked key must stop working everywhere within 5.
KEY_TTL = 4.0
#: Longest API key that is looked up, in characters.
KEY_MAX = 256
#: API keys that a worker caches at most.
KEYS_REMEMBERED = 10_000


def digest(api_key: str, secret: str) -> str:
    """The keyed hash (HMAC-SHA-256, hex) under which Redis stores an API key."""
    return hmac.digest(secret.encode(), api_key.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """The API keys of all projects. `secret` is the key of their hashes."""

    redis: RedisClient
    secret: str

    async def add(self, project: Project, api_key: str | None = None, *, name: str = "key") -> str:
        """Let `api_key`, or a new one, give access to `project`; returns the API key."""
        api_key = api_key or KEY_PREFIX + secrets.token_urlsafe(32)
        key_digest = digest(api_key, self.secret)
        if await self._is_recorded(project, key_digest, name):
            return api_key
        # The set first: a record that is in no set could not be revoked with its project.
        await self.redis.call("SADD", keys.tokens_key(project.slug), key_digest, writes=True)
        await self.redis.call(
            "HSET", keys.token_key(key_digest), "project", project.slug, "project_id", project.id, "name", name, writes=True
        )
        return api_key

    async def _is_recorded(self, project: Project, key_digest: str, name: str) -> bool:
        """Whether the record and the set are correct already; then nothing needs to be written."""
        record = await self.redis.call("HMGET", keys.token_key(key_digest), "project", "project_id", "name")
        expected = [project.slug.encode(), project.id.encode(), name.encode()]
        return record == expected and key_digest.encode() in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug))

    async def digests(self, project: Project, name: str) -> set[str]:
        """The digests of the API keys of `project` that have this name."""
        matching = set()
        for member in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug)):
            key_digest = member.decode()
            if await self.redis.call("HGET", keys.token_key(key_digest), "name") == name.encode():
                matching.add(key_digest)
        return matching

    async def revoke(self, project: Project, *, name: str | None = None, but: str | None = None) -> None:
        """Revoke all API keys of `project`, or those with this name, except the API key `but`."""
        kept = digest(but, self.secret) if but else None
        for member in await self.redis.call("SMEMBERS", keys.tokens_key(project.slug)):
            key_digest = member.decode()
            stored_name = await self.redis.call("HGET", keys.token_key(key_digest), "name")
            if key_digest != kept and (name is None or stored_name == name.encode()):
                await self._revoke(project, key_digest)

    async def _revoke(self, project: Project, key_digest: str) -> None:
        await self.redis.call("DEL", keys.token_key(key_digest), writes=True)
        await self.redis.call("SREM", keys.tokens_key(project.slug), key_digest, writes=True)

    async def rotate(self, project: Project, show: Callable[[str], None]) -> str:
        """Add a new API key, pass it to `show`, and revoke all others; returns the new one.

        If `show` raises, nobody has seen the new key: it is revoked, and the others stay valid.
        """
        api_key = await self.add(project)
        try:
            show(api_key)
        except Exception:
            await self._revoke(project, digest(api_key, self.secret))
            raise
        await self.revoke(project, but=api_key)
        return api_key

    async def load(self, api_key: str) -> Project | None:
        """The project that `api_key` gives access to, None if there is none."""
        record = await self.redis.call("HMGET", keys.token_key(digest(api_key, self.secret)), "project", "project_id")
        return None if None in record else Project(record[0].decode(), record[1].decode())


T = TypeVar("T")


class _Authenticated(NamedTuple, Generic[T]):
    """A cached look-up: valid until `valid_until` (monotonic seconds)."""

    valid_until: float
    authorization: str
    project_store: T
    slug: str


class KeyRing(Generic[T]):
    """One worker's cache of API keys: a successful look-up is valid for `KEY_TTL` seconds, a failed one is not cached."""

    def __init__(self, api_keys: ApiKeys, make_project_store: Callable[[Project, int], T], partitions: int = 1) -> None:
        """`make_project_store` makes the store that requests to a project get, of the project and the store's generation.

        It runs once per look-up, not per request.

        `partitions` is the number that this server was started with.
        """
        self._api_keys = api_keys
        self._partitions = partitions
        self._make_project_store = make_project_store
        self._cache: dict[str, _Authenticated[T]] = {}

    async def authenticate(self, authorization: str, *, anew: bool = False) -> T:
        """The project store for the API key in an Authorization header. With `anew`, the cache is not used.

        Raises:
            Unauthorized: the key gives access to no project.
            StoreUnavailable: the store is empty, has another number of partitions, is being repartitioned, or only
                newer releases may use it.
        """
        cached = self._cache.get(authorization)
        # Compared in constant time; Redis is only asked by the keyed hash.
        if (
            not anew
            and cached
            and hmac.compare_digest(cached.authorization, authorization)
            and time.monotonic() < cached.valid_until
        ):
            return cached.project_store
        scheme, _, api_key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not api_key.startswith(KEY_PREFIX) or len(api_key) > KEY_MAX or not api_key.isascii():
            raise Unauthorized
        started = time.monotonic()
        project = await self._api_keys.load(api_key)
        # Checked at each look-up, so that after KEY_TTL no worker uses a store that was emptied, is being repartitioned, or is
        # reserved for newer releases. It comes before Unauthorized, because in an emptied store every key is unknown.
        generation = await manifest.confirm(self._api_keys.redis, self._partitions)
        if project is None:
            self._cache.pop(authorization, None)
            raise Unauthorized
        if len(self._cache) >= KEYS_REMEMBERED:
            self._cache.clear()
        project_store = self._make_project_store(project, generation)
        self._cache[authorization] = _Authenticated(started + KEY_TTL, authorization, project_store, project.slug)
        return project_store

    def project_of(self, authorization: str) -> str:
        """The slug of the project that a key last gave access to, "" if not cached. This authorizes nothing."""
        cached = self._cache.get(authorization)
        return "" if cached is None else cached.slug
