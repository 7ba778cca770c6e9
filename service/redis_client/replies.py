"""What the error replies of Redis mean.

Redis quotes arguments in some of its errors (`unknown command 'X', with args beginning with: …`), and arguments are configs and
keys. So the text of a reply goes no further than this module: callers, logs and responses get a sentence of ours, or what
`safe_text` keeps.
"""

import re
from typing import NamedTuple

import hiredis

from service.errors import (
    LayoutChanged,
    ServiceError,
    StateIncomplete,
    StoreFull,
    StoreUnavailable,
    Unauthorized,
    WriteUncertain,
)
from service.redis_client.errors import NoScriptError, ResponseError, WrongType

# Redis 6.2 wraps the refusal of a script's own command; it and Valkey put ERR before it.
_WRAPPED = re.compile(r"^(?:ERR )?(?:Error running script .*?@user_script: ?\d+: ?)?(?:@user_script: ?\d+: ?)?-?(?:ERR )?")
_IN_SCRIPT = re.compile(r"user_script: ?(\d+)")
# A script accessed a key of a migrating slot that is on the other node. Scripts that write check for this before they do.
_NOT_LOCAL = r".*non local key in a cluster node"
# These may pass soon, or not apply to the server that replaces this one.
_TRANSIENT = re.compile(rf"(?:LOADING|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|{_NOT_LOCAL})\b")
_MIGRATING = re.compile(rf"(?:TRYAGAIN|{_NOT_LOCAL})\b")
# What a server replies on open connections once it is no longer the master, or is cut off from its replicas.
_DEMOTED = re.compile(r"(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS|UNBLOCKED)\b")
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")
# What a server quotes follows a quote, a colon or a digit.
_NOT_PLAIN = re.compile(r"[^A-Za-z ,.()-]")


class Cause(NamedTuple):
    """Why Redis is unavailable: a sentence for the operator, and whether waiting may help."""

    sentence: str
    may_pass: bool


CLUSTER_DOWN = Cause("the Redis Cluster is down, or no node serves some of its slots", may_pass=True)

#: How a refusal begins (redis-py removes the error code of some), and what it means. Nothing was executed, unless a script had
#: begun to write; that only happens if `may_pass` is false.
_REFUSALS = tuple(
    (re.compile(pattern), Cause(sentence, may_pass))
    for pattern, sentence, may_pass in (
        (r"LOADING\b|Redis is loading", "Redis is still loading its data", True),
        (r"MASTERDOWN\b", "redis_url points to a replica that has lost its master", True),
        (r"READONLY\b", "redis_url points to a read-only replica", True),
        (r"NOREPLICAS\b", "Redis refuses writes: it has fewer replicas than its min-replicas-to-write", True),
        (r"CLUSTERDOWN\b", *CLUSTER_DOWN),
        (rf"TRYAGAIN\b|{_NOT_LOCAL}\b", "a slot of the Redis Cluster is migrating", True),
        (r"OOM\b", "Redis is out of memory; see its maxmemory", True),
        (r"BUSY\b", "Redis is busy running a script", True),
        (r"MISCONF\b", "Redis cannot write to its disk and refuses writes", True),
        (r"UNBLOCKED\b", "the Redis server has become a replica", True),
        (r"max number of clients", "Redis accepts no more connections; see its maxclients", True),
        (r"NOAUTH\b|Authentication required", "Redis requires a password, but redis_url has none", False),
        (r"AUTH <password> called without", "redis_url has a password, but Redis has none set", False),
        (r"WRONGPASS\b|invalid (?:username-)?password", "Redis rejects the user name or password in redis_url", False),
        (r"DB index|invalid DB index|SELECT is not allowed", "Redis has no database with the number in redis_url", False),
        (r"DENIED\b|Redis is running in protected mode",
         "Redis is in protected mode: set a password, or let it listen on a private address", False),
        (r"MOVED\b|ASK\b", "redis_url points to a node of a Redis Cluster; write redis+cluster:// instead of redis://", False),
        (r"This instance has cluster support disabled",
         "redis_url names a Redis Cluster, but the server is not in one; write redis:// instead of redis+cluster://", False),
        (r"unknown command .SENTINEL", "redis_url names Sentinels, but the server is not one", False),
        (r".*undeclared key", "Redis refuses scripts that access undeclared keys", False),
        (r"NOPERM .*(?:one of the keys|access a key)|.*can't access at least one of the keys|ACL failure.*access a key|"
         r"No permissions to access a key", "the user in redis_url may not access the keys scc:* in Redis", False),
        (r"NOPERM\b|ACL failure in script|The user executing the script|(?:this user|User \S+) has no permissions",
         "the user in redis_url lacks permissions in Redis", False),
        (r"[Uu]nknown (?:Redis )?command", "Redis does not know or does not allow a required command", False),
    )
)  # fmt: skip
_COMMAND = re.compile(r"(?:run the|unknown command|Unknown Redis command) .([A-Za-z|_-]{1,30})['`] ?")

#: The error codes of our own scripts (`lua/include/ownership.lua`), which they return before they write anything.
_OWNERSHIP: dict[str, type[ServiceError]] = {
    "OTHERPROJECT": Unauthorized,
    "OTHERLAYOUT": LayoutChanged,
    "NOOWNER": StateIncomplete,
}


class Redirection(NamedTuple):
    """The node that serves a slot (MOVED), or that already has the migrated keys of one (ASK).

    `kind` is MOVED or ASK. An empty `host` means that of the node that replied.
    """

    kind: str
    slot: int
    host: str
    port: int


def is_transient(reply: object) -> bool:
    """Whether a reply is a refusal, but another attempt, later or on another server, may succeed."""
    return isinstance(reply, hiredis.ReplyError) and _TRANSIENT.match(_body(str(reply))) is not None


def is_demoted(reply: object) -> bool:
    """Whether a reply, or the text of one, comes from a server that is not the master, or is cut off from its replicas."""
    text = reply if isinstance(reply, str) else str(reply) if isinstance(reply, hiredis.ReplyError) else ""
    return _DEMOTED.match(_body(text)) is not None


def is_migrating(reply: object) -> bool:
    """Whether a reply says that a slot is migrating, and that neither node has all keys of the command."""
    return isinstance(reply, hiredis.ReplyError) and _MIGRATING.match(_body(str(reply))) is not None


def redirection(reply: object) -> Redirection | None:
    """The redirection in an error reply of a cluster node, None if the reply is none."""
    match = _REDIRECTION.fullmatch(str(reply)) if isinstance(reply, hiredis.ReplyError) else None
    return Redirection(match[1], int(match[2]), match[3], int(match[4])) if match else None


def refusal(text: str) -> Cause | None:
    """The cause that the text of an error reply names; None if it is no refusal."""
    body = _body(text)
    for pattern, cause in _REFUSALS:
        if pattern.match(body):
            command = _COMMAND.search(body)
            # The command name is ours; what follows it in the text may be a config.
            return Cause(f"{cause.sentence}: {command[1].upper()}", cause.may_pass) if command else cause
    return None


def to_exception(error: hiredis.ReplyError, *, writes: bool) -> Exception:
    """The exception that a caller of the client gets for an error reply; `writes` says whether its command may write."""
    text = str(error)
    if text.startswith("NOSCRIPT"):
        return NoScriptError("NOSCRIPT No matching script")
    body = _body(text)
    if (error_class := _OWNERSHIP.get(body.partition(" ")[0])) is not None:
        return error_class()
    if body.startswith("WRONGTYPE "):
        # A script may have accessed the key after its first write, and Redis does not roll it back.
        return WrongType(safe_text(text), is_uncertain=writes and _IN_SCRIPT.search(text) is not None)
    cause = refusal(text)
    if cause is None:
        return ResponseError(safe_text(text))
    if body.startswith("OOM "):
        return StoreFull(diagnosis=cause.sentence)
    # Redis does not roll a script back: a missing permission may stop it in the middle of its writes.
    uncertain = writes and not cause.may_pass and _IN_SCRIPT.search(text) is not None
    kind = WriteUncertain if uncertain else StoreUnavailable
    return kind(diagnosis=cause.sentence, may_pass=cause.may_pass)


def safe_text(text: str) -> str:
    """An error reply without anything that it may quote: the plain words that it begins with, and the line of the script."""
    line = _IN_SCRIPT.search(text)
    body = re.sub(r"^user_script: ?\d+: ?", "", _body(text) if line else text).partition(" script:")[0]
    plain = _NOT_PLAIN.split(body, maxsplit=1)[0].strip(" ,")
    return f"{plain} (line {line[1]} of a script)" if line else plain


def _body(text: str) -> str:
    """The text of an error without what Redis 6.2 wraps around it."""
    return _WRAPPED.sub("", text, count=1)
