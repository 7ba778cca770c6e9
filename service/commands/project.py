"""`project`: create, list and delete projects, and rotate their keys."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace

from service.commands import _store
from service.errors import BadRequest, OutputError
from service.settings import CONNECTION, Settings, add_flags
from service.store.api_keys import KEY_TTL
from service.store.projects import Registry
from service.store.upkeep.bootstrap import DEFAULT_PROJECT


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = "print the names and ids of all projects"
    add_flags(actions.add_parser("list", help=listing, description=listing), CONNECTION)
    for action, text in (
        ("create", "create a project and print its key, which is shown only once"),
        ("rotate-key", "print a new key, which is shown only once; the project's other keys stop working within 5 seconds"),
        ("delete", "delete a project with its sessions, users and keys"),
    ):
        subparser = actions.add_parser(action, help=text, description=text)
        subparser.add_argument("name", metavar="NAME", help="the project's name: a-z, 0-9 and -")
        add_flags(subparser, CONNECTION)


def run(arguments: Namespace, settings: Settings) -> int:
    """Run the action; the exit status is 0."""
    asyncio.run(_run(arguments, settings))
    return 0


async def _run(arguments: Namespace, settings: Settings) -> None:
    async with _store.registry(settings, writes=arguments.action != "list") as registry:
        match arguments.action:
            case "list":
                for project in await registry.all():
                    _say(f"{project.slug}\t{project.id}")
            case "create":
                await _create(registry, arguments.name, settings)
            case "rotate-key":
                await registry.api_keys.rotate(await registry.get(arguments.name), show=lambda key: _say(f"key {key}"))
            case "delete":
                await _delete(registry, arguments.name, settings)
                _say(f"project {arguments.name} deleted")


async def _create(registry: Registry, name: str, settings: Settings) -> None:
    project, key = await registry.create(name)
    try:
        _say(f"project {project.slug} {project.id}\nkey {key}")
    except (OSError, OutputError):
        # The key was not printed and is lost: delete the project, so that the command can be repeated.
        await registry.api_keys.revoke(project)
        await registry.delete(await _store.sessions(registry.redis, project, settings))
        raise


async def _delete(registry: Registry, name: str, settings: Settings) -> None:
    if name == DEFAULT_PROJECT:
        raise BadRequest(f"project {DEFAULT_PROJECT} belongs to the root key and cannot be deleted")
    project = await registry.get(name)
    await registry.api_keys.revoke(project)
    # Workers cache a key for KEY_TTL; no client must write while the sessions are deleted.
    _say("keys revoked; waiting until no worker accepts them")
    await asyncio.sleep(KEY_TTL + settings.command_timeout)
    await registry.delete(await _store.sessions(registry.redis, project, settings))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
