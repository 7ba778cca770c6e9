"""What a handler gets: the request with its parsed query and conditions, and the store of the project that its key opens."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from aiohttp import web

from service.errors import Unauthorized
from service.http.server.admission import AdmissionControl, Ticket
from service.http.server.counters import Counters
from service.http.server.observation import Observer, RequestLog
from service.http.server.response import Response
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
class ProjectStore:
    """The data of one project.

    Every ETag on the wire begins with `etag_prefix`: the store's generation, or nothing if it was never restored from a backup.
    """

    project: Project
    sessions: Sessions
    users: Users
    configs: ProjectConfigs
    etag_prefix: str


class WorkerContext:
    """What the requests of one worker process share: settings, Redis client, admission control, cached API keys, schedulers."""

    def __init__(self, settings: Settings, redis: RedisClient, counters: Counters | None = None) -> None:
        """`counters` is None if nobody reads them."""
        self.settings = settings
        self.redis = redis
        self.counters = counters
        redis.meter = counters
        self.admission = AdmissionControl(settings.max_in_flight)
        self.config_watch = ConfigWatch(redis)
        self.rate_limiter = _rate_limiter(settings, redis)
        self.scan_scheduler = Scheduler()
        self.large_lists = asyncio.Semaphore(LARGE_LISTS)
        self.api_keys = KeyRing(ApiKeys(redis, settings.key_secret), self._project_store, settings.partitions)
        self.observer: Observer | None = counters
        if settings.access_log:
            self.observer = RequestLog(counters, self.api_keys.project_of)

    def _project_store(self, project: Project, generation: int) -> ProjectStore:
        sessions = Sessions(self.redis, project, self.settings, self.settings.partitions)
        etag_prefix = f"{generation}-" if generation else ""
        return ProjectStore(project, sessions, Users(sessions), ProjectConfigs(sessions), etag_prefix)


def _rate_limiter(settings: Settings, redis: RedisClient) -> RateLimiter | None:
    if not settings.rate_limit:
        return None
    return RateLimiter(redis, settings.key_secret, settings.rate_limit, settings.rate_burst or ceil(settings.rate_limit))


class Call(NamedTuple):
    """One request as its handler sees it.

    `parameter` is the value of the path's `{name}`; `query` and `conditions` have only what the route accepts. Only requests
    below the API's prefix have a `project_store`.
    """

    request: web.BaseRequest
    parameter: str
    worker: WorkerContext
    ticket: Ticket
    project_store: ProjectStore | None
    query: Mapping[str, str]
    conditions: Conditions

    @property
    def settings(self) -> Settings:
        """The settings, limits included."""
        return self.worker.settings

    @property
    def store(self) -> ProjectStore:
        """The store of the project that the API key opens."""
        assert self.project_store is not None  # noqa: S101 - the dispatch authenticates every request below the prefix
        return self.project_store

    async def confirm_key(self) -> None:
        """Authenticate again once a body has arrived, which may take long: the cached key may be too old for a write.

        Raises:
            Unauthorized: the key was revoked, or opens another project now.
            LayoutChanged: the store has another number of partitions now.
        """
        project_store = await self.worker.api_keys.authenticate(self.request.headers.get("Authorization", ""))
        if project_store.project != self.store.project:
            raise Unauthorized


Handler = Callable[[Call], Awaitable[Response]]
