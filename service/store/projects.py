"""Projects: their creation, listing and deletion."""

import re
import time
from dataclasses import dataclass
from uuid import uuid4

from service.errors import BadRequest, ProjectNotFound
from service.redis_client.client import RedisClient, checked
from service.store import keys, manifest, ownership
from service.store.api_keys import ApiKeys
from service.store.keys import Owner, all_partitions, is_text
from service.store.listing import Query, iter_matches
from service.store.record import Project
from service.store.sessions import Sessions

_SLUG = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Registry:
    """All projects of a store. `secret` is the key of the hashes of their API keys."""

    redis: RedisClient
    secret: str

    @property
    def api_keys(self) -> ApiKeys:
        """The API keys of all projects."""
        return ApiKeys(self.redis, self.secret)

    async def create(self, slug: str) -> tuple[Project, str]:
        """Create a project; returns it and its first API key.

        Raises:
            BadRequest: the name is taken, or not made of `a-z`, `0-9` and `-`.
        """
        if not _SLUG.fullmatch(slug):
            raise BadRequest("a project's name is 1 to 63 of a-z, 0-9 and -, with no - at either end")
        project = await self.ensure(slug, new=True)
        return project, await self.api_keys.add(project)

    async def ensure(self, slug: str, *, new: bool = False) -> Project:
        """The project `slug`, created if it does not exist.

        Raises:
            BadRequest: it must be `new`, but exists.
            StartupError: the store is being repartitioned.
        """
        partitions = await manifest.settled_partitions(self.redis, needs_record=False)
        # Read first: a server must start on a full store, which accepts no write.
        exists = not new and await self.redis.call("HGET", keys.PROJECTS, slug) is not None
        is_new = not exists and await self.redis.call("HSETNX", keys.PROJECTS, slug, str(uuid4()), writes=True)
        if not is_new and new:
            raise BadRequest(f"there is a project {slug} already")
        project = await self.get(slug)
        created_at = int(time.time() * 1_000_000)
        await self.redis.batch(
            [
                ("HSETNX", keys.project_key(slug), "id", project.id),
                ("HSETNX", keys.project_key(slug), "created_at", created_at),
                ("HSETNX", keys.project_key(slug), "configs", "{}"),
            ],
            writes=True,
        )
        # A state left over from an earlier project of this name still names that one.
        write = ownership.record if is_new else ownership.complete
        await write(self.redis, all_partitions(slug, Owner(project.id, partitions), partitions))
        return project

    async def complete_states(self) -> None:
        """Write the owner into every partition state that lacks it, as states written by earlier versions do."""
        partitions = await manifest.settled_partitions(self.redis)
        for project in await self.all():
            await ownership.complete(self.redis, all_partitions(project.slug, Owner(project.id, partitions), partitions))

    async def get(self, slug: str) -> Project:
        """The project `slug`.

        Raises:
            ProjectNotFound: it does not exist.
        """
        project_id = await self.redis.call("HGET", keys.PROJECTS, slug)
        if project_id is None:
            raise ProjectNotFound(slug)
        return Project(slug, project_id.decode())

    async def all(self) -> list[Project]:
        """Every project, by name; a name that is not UTF-8 was written manually and is skipped."""
        flat = await self.redis.call("HGETALL", keys.PROJECTS)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        projects = (Project(slug.decode(), name.decode()) for slug, name in pairs if is_text(slug) and is_text(name))
        return sorted(projects, key=lambda each: each.slug)

    async def delete(self, sessions: Sessions) -> None:
        """Delete the project of `sessions`: its sessions, users and configs. Its API keys must have been revoked.

        After the first step no request can write to it. Its name is free after the last one; an interrupted deletion can be
        repeated.

        Raises:
            ProjectNotFound: it does not exist any more; another project may have its name.
        """
        slug = sessions.project.slug
        if await self.get(slug) != sessions.project:
            raise ProjectNotFound(slug)
        deleted = Sessions(
            self.redis, Project(slug, ownership.DELETED), sessions.limits, sessions.partitions, sessions.block_size
        )
        await ownership.record(self.redis, deleted.all_partitions)
        async for batch in iter_matches(deleted, Query(), with_expired=True):
            await deleted.delete_many([session.id for session in batch])
        # In one command: scripts that write users check the project's record.
        project_keys = (keys.project_key(slug), keys.users_key(slug), keys.expected_users_key(slug), keys.tokens_key(slug))
        states = [("UNLINK", partition.state) for partition in deleted.all_partitions]
        checked(await self.redis.batch([("UNLINK", *project_keys), *states], writes=True))
        await self.redis.call("HDEL", keys.PROJECTS, slug, writes=True)
