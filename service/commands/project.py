"""`project`: create, list and delete projects, and rotate their keys."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import click

from service.commands import _store
from service.commands._parameters import TEXT, setting_flags, takes_settings
from service.errors import BadRequest, OutputError
from service.process import data_dir
from service.settings import CONNECTION, Settings
from service.store.api_keys import KEY_TTL
from service.store.projects import Registry
from service.store.upkeep.bootstrap import DEFAULT_PROJECT

Action: TypeAlias = Callable[..., Awaitable[None]]

_NAME = click.argument("name", type=TEXT, metavar="NAME", help="the project's name: a-z, 0-9 and -")


@click.group()
@setting_flags(CONNECTION)
def command() -> None:
    pass


@command.command("list", help="Print the names and ids of all projects.")
@takes_settings(CONNECTION)
def list_projects(settings: Settings) -> int:
    return _run(_list, settings, writes=False)


@command.command("create", help="Create a project and print its key, which is shown only once.")
@_NAME
@takes_settings(CONNECTION)
def create(settings: Settings, name: str) -> int:
    return _run(_create, settings, name)


@command.command(
    "rotate-key",
    help="Print a new key, which is shown only once; the project's other keys stop working within 5 seconds.",
    short_help="Print a new key; the other keys stop working.",
)
@_NAME
@takes_settings(CONNECTION)
def rotate_key(settings: Settings, name: str) -> int:
    return _run(_rotate_key, settings, name)


@command.command("delete", help="Delete a project with its sessions, users and keys.")
@_NAME
@takes_settings(CONNECTION)
def delete(settings: Settings, name: str) -> int:
    return _run(_delete, settings, name)


def _run(action: Action, settings: Settings, *arguments: str, writes: bool = True) -> int:
    """Run an action on the store of the running server; the exit status is 0."""
    asyncio.run(_on_registry(action, data_dir.with_running_redis(settings, needs_key_secret=True), arguments, writes))
    return 0


async def _on_registry(action: Action, settings: Settings, arguments: Sequence[str], writes: bool) -> None:
    async with _store.registry(settings, writes=writes) as registry:
        await action(registry, settings, *arguments)


async def _list(registry: Registry, settings: Settings) -> None:  # noqa: ARG001 - the signature of an action
    for project in await registry.all():
        _say(f"{project.slug}\t{project.id}")


async def _rotate_key(registry: Registry, settings: Settings, name: str) -> None:  # noqa: ARG001 - as above
    await registry.api_keys.rotate(await registry.get(name), show=lambda key: _say(f"key {key}"))


async def _create(registry: Registry, settings: Settings, name: str) -> None:
    project, key = await registry.create(name)
    try:
        _say(f"project {project.slug} {project.id}\nkey {key}")
    except (OSError, OutputError):
        # The key was not printed and is lost: delete the project, so that the command can be repeated.
        await registry.api_keys.revoke(project)
        await registry.delete(await _store.sessions(registry.redis, project, settings))
        raise


async def _delete(registry: Registry, settings: Settings, name: str) -> None:
    if name == DEFAULT_PROJECT:
        raise BadRequest(f"project {DEFAULT_PROJECT} belongs to the root key and cannot be deleted")
    project = await registry.get(name)
    await registry.api_keys.revoke(project)
    # Workers cache a key for KEY_TTL; no client must write while the sessions are deleted.
    _say("keys revoked; waiting until no worker accepts them")
    await asyncio.sleep(KEY_TTL + settings.command_timeout)
    await registry.delete(await _store.sessions(registry.redis, project, settings))
    _say(f"project {name} deleted")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
