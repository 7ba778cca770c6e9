"""`project`: create, list and delete projects, and change their keys."""

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
    """Add what `project` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = "names and ids of all projects"
    add_flags(actions.add_parser("list", help=listing, description=listing), CONNECTION)
    for action, text in (
        ("create", "create a project and print its key, which is shown this once"),
        ("rotate-key", "print a new key, shown this once, and revoke all others of the project within 5 seconds"),
        ("delete", "delete a project with its sessions, users and keys"),
    ):
        chosen = actions.add_parser(action, help=text, description=text)
        chosen.add_argument("name", metavar="NAME", help="the project's name: a-z, 0-9 and -")
        add_flags(chosen, CONNECTION)


def run(arguments: Namespace, settings: Settings) -> int:
    """Do it; the exit status is 0."""
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
                _say(f"project {arguments.name} is deleted")


async def _create(registry: Registry, name: str, settings: Settings) -> None:
    project, key = await registry.create(name)
    try:
        _say(f"project {project.slug} {project.id}\nkey {key}")
    except (OSError, OutputError):
        # Nobody has seen the only key: the project goes again, and the command can be repeated.
        await registry.api_keys.revoke(project)
        await registry.delete(await _store.sessions(registry.redis, project, settings))
        raise


async def _delete(registry: Registry, name: str, settings: Settings) -> None:
    if name == DEFAULT_PROJECT:
        raise BadRequest(f"project {DEFAULT_PROJECT} belongs to the root key and stays")
    project = await registry.get(name)
    await registry.api_keys.revoke(project)
    # Workers trust a key that they know for so long; nobody must write while the sessions go.
    _say("keys revoked; waiting until every worker knows")
    await asyncio.sleep(KEY_TTL + settings.command_timeout)
    await registry.delete(await _store.sessions(registry.redis, project, settings))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
