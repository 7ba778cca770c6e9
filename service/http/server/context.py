"""What a handler gets: the request, what it asks for, and the store of the project that its key opened."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from aiohttp import web

from service.errors import Unauthorized
from service.http.server.admission import AdmissionControl, Ticket
from service.redis_client.client import RedisClient
from service.settings import Settings
from service.store.api_keys import ApiKeys, KeyRing
from service.store.conditions import Conditions
from service.store.listing import LARGE_LISTS
from service.store.project_configs import ProjectConfigs
from service.store.rate_limit import RateLimiter
from service.store.record import Project
from service.store.sessions import Sessions
from service.store.time_slices import Scheduler
from service.store.upkeep.server_config import ConfigWatch
from service.store.users import Users


@dataclass(frozen=True, slots=True)
class Store:
    """All that belongs to one project."""

    project: Project
    sessions: Sessions
    users: Users
    configs: ProjectConfigs


class Worker:
    """One worker process: its settings, its way to Redis, and the keys that it knows."""

    def __init__(self, settings: Settings, redis: RedisClient) -> None:
        self.settings = settings
        self.redis = redis
        self.admission = AdmissionControl(settings.max_in_flight)
        self.config_watch = ConfigWatch(redis)
        self.rates = _rates(settings, redis)
        self.scans = Scheduler()
        self.large_lists = asyncio.Semaphore(LARGE_LISTS)
        self.keys = KeyRing(ApiKeys(redis, settings.key_secret), self._store, settings.partitions)

    def _store(self, project: Project) -> Store:
        sessions = Sessions(self.redis, project, self.settings, self.settings.partitions)
        return Store(project, sessions, Users(sessions), ProjectConfigs(sessions))


def _rates(settings: Settings, redis: RedisClient) -> RateLimiter | None:
    if not settings.rate_limit:
        return None
    return RateLimiter(redis, settings.key_secret, settings.rate_limit, settings.rate_burst or ceil(settings.rate_limit))


class Call(NamedTuple):
    """One request as a handler sees it.

    `parameter` is the path's `{name}`; `query` and `conditions` hold only parameters and conditions that the route takes. Only
    paths of the API have a `store`.
    """

    request: web.BaseRequest
    parameter: str
    worker: Worker
    ticket: Ticket
    opened: Store | None
    query: Mapping[str, str]
    conditions: Conditions

    @property
    def settings(self) -> Settings:
        """The settings, limits included."""
        return self.worker.settings

    async def confirm_key(self) -> None:
        """Look the key up again if its look-up is too old for a write; called when a body has arrived, which takes its time.

        Raises:
            Unauthorized: the key was revoked meanwhile, or opens another project.
            LayoutChanged: the store has another number of partitions.
        """
        opened = await self.worker.keys.authenticate(self.request.headers.get("Authorization", ""))
        if opened.project != self.store.project:
            raise Unauthorized

    @property
    def store(self) -> Store:
        """The store of the project that the key opened."""
        assert self.opened is not None  # noqa: S101 - the dispatch has opened it for every path of the API
        return self.opened
