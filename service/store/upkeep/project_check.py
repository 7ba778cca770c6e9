"""The check of projects, their records and their API keys."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import orjson

from service.configs.document import is_stored_form
from service.configs.ttl import LAST_MOMENT
from service.redis_client.client import RedisClient, checked
from service.redis_client.errors import WrongType
from service.redis_client.multiplexer import Command
from service.store import keys
from service.store.keys import is_text
from service.store.record import Project
from service.store.upkeep import partition_check
from service.store.verify import MAX_INTEGER, Finding, is_number, readable, verify_type

_FIELDS = ("id", "created_at", "configs", "configs_revision")
#: Keys read in one round trip.
BATCH = 500


async def check_project(redis: RedisClient, project: Project, *, repair: bool) -> AsyncIterator[Finding]:
    """The record of a listed project, its users, and the set of its API keys."""
    slug = project.slug
    for key, kind, derived in (
        (keys.users_key(slug), "zset", True),
        (keys.expected_users_key(slug), "hash", True),
        (keys.tokens_key(slug), "set", True),
        (keys.project_key(slug), "hash", False),
    ):
        for finding in await verify_type(redis, key, kind, derived=derived, repair=repair):
            yield finding
    try:
        fields = await redis.call("HMGET", keys.project_key(slug), *_FIELDS)
        if None in fields[:3]:
            # A project is listed before its record is written, and loses its record before its listing.
            await asyncio.sleep(partition_check.CONFIRM_DELAY)
            fields = await redis.call("HMGET", keys.project_key(slug), *_FIELDS)
    except WrongType:
        return
    if await redis.call("HGET", keys.PROJECTS, slug) is None:
        return
    for problem, value in _problems(project, fields):
        yield Finding("record", slug, problem, repairable=value is not None)
        if repair and value is not None:
            name = problem.partition(" ")[0]
            await redis.call("HSET", keys.project_key(slug), name, value, writes=True)
    async for finding in _check_members(redis, project, repair=repair):
        yield finding


def _problems(project: Project, fields: Sequence[bytes | None]) -> list[tuple[str, str | None]]:
    """What is wrong with the fields of a project's record, each with the value that repairs it, or None."""
    name, created_at, configs, revision = fields
    problems: list[tuple[str, str | None]] = []
    if not is_id(project.id):
        problems.append(("the id in scc:projects is not a UUID", None))
    elif name != project.id.encode():
        problems.append(("id is not the one in scc:projects", project.id if name is None else None))
    if not is_number(created_at, LAST_MOMENT):
        problems.append(("created_at is not a time", str(int(time.time() * 1_000_000))))
    if configs is None:
        problems.append(("configs are missing", "{}"))
    elif not _are_configs(configs):
        problems.append(("configs cannot be read", None))
    if revision is not None and not is_number(revision, MAX_INTEGER):
        problems.append(("configs_revision is not a number", "0"))
    return problems


def is_id(text: str) -> bool:
    """Whether `text` can be a project's id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _are_configs(configs: bytes) -> bool:
    try:
        return isinstance(orjson.loads(configs), dict) and is_stored_form(configs)
    except orjson.JSONDecodeError:
        return False


async def _check_members(redis: RedisClient, project: Project, *, repair: bool) -> AsyncIterator[Finding]:
    """The members of the set of a project's API keys: each has a record that leads to the project."""
    key, cursor = keys.tokens_key(project.slug), b"0"
    while True:
        try:
            cursor, members = await redis.call("SSCAN", key, cursor, "COUNT", BATCH)
        except WrongType:
            return
        suspects = await _without_record(redis, project, members)
        if suspects:
            # A new key joins the set before it has a record; a revoked one leaves the set after that.
            await asyncio.sleep(partition_check.CONFIRM_DELAY)
            for member in await _without_record(redis, project, suspects):
                if await redis.call("SISMEMBER", key, member):
                    yield Finding("token", readable(member))
                    if repair:
                        await redis.call("SREM", key, member, writes=True)
        if cursor == b"0":
            return


async def _without_record(redis: RedisClient, project: Project, members: Sequence[bytes]) -> list[bytes]:
    """Those of `members` without a record that names the project."""
    names: list[Command] = [("HGET", keys.token_key("").encode() + member, "project") for member in members]
    replies = await redis.batch(names)
    return [
        member
        for member, reply in zip(members, replies, strict=True)
        if reply != project.slug.encode() and not isinstance(reply, WrongType)
    ]


async def check_tokens(redis: RedisClient, digests: Sequence[str], *, repair: bool) -> AsyncIterator[Finding]:
    """The records of API keys: each names a listed project, whose set of API keys has it."""
    replies = await redis.batch([("HMGET", keys.token_key(digest), "project", "project_id") for digest in digests])
    for digest, reply in zip(digests, replies, strict=True):
        if isinstance(reply, WrongType):
            for finding in await verify_type(redis, keys.token_key(digest), "hash"):
                yield finding
            continue
        slug, project_id = checked([reply])[0]
        if slug is None and project_id is None and not await redis.call("EXISTS", keys.token_key(digest)):
            continue  # revoked meanwhile
        if slug is None or not is_text(slug) or project_id is None or not await _leads_to_project(redis, slug, project_id):
            if await redis.call("EXISTS", keys.token_key(digest)):
                yield Finding("orphaned token", digest)
            continue
        if not await _is_member(redis, slug.decode(), digest):
            yield Finding("token", digest)
            if repair:
                await redis.call("SADD", keys.tokens_key(slug.decode()), digest, writes=True)


async def _leads_to_project(redis: RedisClient, slug: bytes, project_id: bytes) -> bool:
    try:
        return bool(await redis.call("HGET", keys.PROJECTS, slug) == project_id)
    except WrongType:
        return True  # reported already


async def _is_member(redis: RedisClient, slug: str, digest: str) -> bool:
    """Whether a project's set has the key; also True if the key is being revoked."""
    try:
        if await redis.call("SISMEMBER", keys.tokens_key(slug), digest):
            return True
    except WrongType:
        return True  # reported already
    await asyncio.sleep(partition_check.CONFIRM_DELAY)
    return not await redis.call("EXISTS", keys.token_key(digest)) or bool(
        await redis.call("SISMEMBER", keys.tokens_key(slug), digest)
    )


async def check_listing(redis: RedisClient, slug: str, key: str, *, repair: bool) -> tuple[Finding | None, Project | None]:
    """Whether a project that was not listed, and had `key`, is listed now or gone.

    With `repair`, one that has a record with an id is listed again, and returned.
    """
    raw = key.encode(errors="surrogateescape")
    try:
        listed = await redis.call("HGET", keys.PROJECTS, slug.encode(errors="surrogateescape"))
    except WrongType:
        listed = None
    if listed is not None or not await redis.call("EXISTS", raw):
        return None, None
    try:
        project_id = await redis.call("HGET", f"scc:{{{slug}}}:project".encode(errors="surrogateescape"), "id")
    except WrongType:
        project_id = None
    if project_id is None or not is_text(project_id) or not is_id(project_id.decode()):
        return Finding("keys", readable(raw)), None
    if repair:
        await redis.call("HSETNX", keys.PROJECTS, slug, project_id, writes=True)
    return Finding("project", slug), Project(slug, project_id.decode()) if repair else None
