"""The configs of a project: one JSON object in the stored form."""

from dataclasses import dataclass

import orjson

from service.configs.document import Document
from service.configs.ttl import Ttl, parse_ttl
from service.errors import StoreUnavailable, WriteUncertain
from service.store import default_ttl, keys, ownership, script_calls
from service.store.sessions import Sessions

_TTL_KEY = orjson.dumps(default_ttl.NAME)


@dataclass(frozen=True)
class ProjectConfigs:
    """The configs of the project of `sessions`.

    The member `session_ttl`, if present, is the default TTL of new sessions, in seconds.
    """

    sessions: Sessions

    @property
    def _project_key(self) -> str:
        return keys.project_key(self.sessions.project.slug)

    async def get(self) -> bytes:
        """All configs of the project, in the stored form."""
        stored: bytes | None = await self.sessions.redis.call("HGET", self._project_key, "configs")
        return stored or b"{}"

    async def patch(self, changes: Document) -> bytes:
        """Merge `changes` as `Sessions.patch` does; returns all configs. Every partition has a new `session_ttl` afterwards.

        Raises:
            BadRequest: `session_ttl` is not a valid TTL.
            ConfigsTooLarge: the result would be over a limit; nothing was written.
            Unreadable: a manual edit made the stored configs unreadable.
        """
        ttls = [parse_ttl(orjson.loads(member.value), default_ttl.NAME) for member in changes.members if member.key == _TTL_KEY]
        if ttls:
            # The project's record does not name the partitions: a change made during a repartition would reach none of them.
            await ownership.confirm(self.sessions.redis, self.sessions.all_partitions[0])
        limits = self.sessions.limits
        call = script_calls.patch_project(
            project=self._project_key,
            project_id=self.sessions.project.id,
            max_bytes=limits.max_configs_bytes,
            max_keys=limits.max_keys,
            members=[part for member in changes.members for part in (member.key, b"" if member.is_null else member.value)],
        )
        reply = await call.run(self.sessions.redis)
        reply.raise_for_status(limits)
        configs: bytes
        configs, revision = reply.values
        for ttl in ttls:
            await self._publish(revision, ttl)
        return configs

    async def _publish(self, revision: int, ttl: Ttl) -> None:
        try:
            await default_ttl.publish(self.sessions.redis, self.sessions.all_partitions, revision, ttl)
        except StoreUnavailable as error:
            # The configs have changed already.
            raise WriteUncertain from error
