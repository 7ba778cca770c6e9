"""What handlers get at: the worker's store, and the project that a request's key opened."""

from dataclasses import dataclass

from aiohttp import web

from service.settings import Settings
from service.store.connection import Link
from service.store.projects import KeyRing, ProjectConfigs
from service.store.sessions import Project, Sessions
from service.store.users import Users


@dataclass(frozen=True)
class Context:
    """One worker's settings and store."""

    settings: Settings
    link: Link
    keys: KeyRing

    def sessions(self, project: Project) -> Sessions:
        """The sessions of `project`."""
        return Sessions(self.link, project, self.settings, self.settings.partitions)


CONTEXT = web.AppKey("context", Context)
PROJECT = web.RequestKey("project", Project)


def context(request: web.Request) -> Context:
    """The worker's context."""
    return request.config_dict[CONTEXT]


def sessions(request: web.Request) -> Sessions:
    """The sessions of the request's project."""
    return context(request).sessions(request[PROJECT])


def users(request: web.Request) -> Users:
    """The users of the request's project."""
    return Users(sessions(request))


def project_configs(request: web.Request) -> ProjectConfigs:
    """The own configs of the request's project."""
    here = context(request)
    return ProjectConfigs(here.link, request[PROJECT], here.settings)
