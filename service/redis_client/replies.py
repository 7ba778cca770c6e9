"""What the errors mean that Redis replies.

Redis quotes arguments in some of its errors (`unknown command 'X', with args beginning with: …`), and arguments are configs and
keys. So the text of a reply ends here: callers, logs and answers get a sentence of ours, or what `safe_text` keeps.
"""

import re
from typing import NamedTuple

import hiredis
from redis import exceptions as redis_errors

from service.errors import (
    LayoutChanged,
    ServiceError,
    StateIncomplete,
    StoreDamaged,
    StoreFull,
    StoreUnavailable,
    Unauthorized,
    WriteUncertain,
)

# Redis 6.2 wraps the refusal of a script's own command; it and Valkey put ERR before it.
_WRAPPED = re.compile(r"^(?:ERR )?(?:Error running script .*?@user_script: ?\d+: ?)?(?:@user_script: ?\d+: ?)?-?(?:ERR )?")
_IN_SCRIPT = re.compile(r"user_script: ?(\d+)")
# A script met a key of a slot on its way that is not there; those that write look for one before they do.
_NOT_LOCAL = r".*non local key in a cluster node"
# These may be over soon, or not be met at the server that has taken over.
_PASSING = re.compile(rf"(?:LOADING|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN|{_NOT_LOCAL})\b")
_IS_MOVING = re.compile(rf"(?:TRYAGAIN|{_NOT_LOCAL})\b")
# What a server replies once it is no longer the master, while its connections stay, or when it is cut off from its replicas.
_DEMOTED = re.compile(r"(?:READONLY|MASTERDOWN|LOADING|NOREPLICAS|UNBLOCKED)\b")
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")
# What a server quotes comes behind a quote, a colon or a digit.
_NOT_PLAIN = re.compile(r"[^A-Za-z ,.()-]")


class Cause(NamedTuple):
    """Why Redis could not be used: a sentence for the operator, and whether waiting may help."""

    sentence: str
    may_pass: bool


CLUSTER_DOWN = Cause("the Redis Cluster is down, or no node serves some of its slots", may_pass=True)

#: What a refusal begins with (redis-py cuts off the code of some), and what it means. Nothing was done then, unless a script
#: had begun to write; that only happens where `may_pass` is false.
_REFUSALS = tuple(
    (re.compile(pattern), Cause(sentence, may_pass))
    for pattern, sentence, may_pass in (
        (r"LOADING\b|Redis is loading", "Redis is still loading its data", True),
        (r"MASTERDOWN\b", "redis_url leads to a replica that has lost its master", True),
        (r"READONLY\b", "redis_url leads to a read-only replica", True),
        (r"NOREPLICAS\b", "Redis refuses writes: it has fewer replicas than its min-replicas-to-write", True),
        (r"CLUSTERDOWN\b", *CLUSTER_DOWN),
        (rf"TRYAGAIN\b|{_NOT_LOCAL}\b", "a slot of the Redis Cluster is being moved", True),
        (r"OOM\b", "Redis is out of memory, see its maxmemory", True),
        (r"BUSY\b", "Redis is busy running a script", True),
        (r"MISCONF\b", "Redis cannot write to its disk and refuses writes", True),
        (r"UNBLOCKED\b", "the Redis server has been made a replica", True),
        (r"max number of clients", "Redis accepts no more connections, see its maxclients", True),
        (r"NOAUTH\b|Authentication required", "Redis requires a password, and redis_url has none", False),
        (r"AUTH <password> called without", "redis_url has a password, and this Redis has none set", False),
        (r"WRONGPASS\b|invalid (?:username-)?password", "Redis rejects the user name or password in redis_url", False),
        (r"DB index|invalid DB index|SELECT is not allowed", "Redis has no database of the number in redis_url", False),
        (r"DENIED\b|Redis is running in protected mode",
         "Redis is in protected mode: set a password, or let it listen on a private address", False),
        (r"MOVED\b|ASK\b", "redis_url leads to a node of a Redis Cluster; write redis+cluster:// in place of redis://", False),
        (r"This instance has cluster support disabled",
         "redis_url names a Redis Cluster, and the server is not part of one; write redis:// for redis+cluster://", False),
        (r"unknown command .SENTINEL", "redis_url names Sentinels, and the server is not one", False),
        (r".*undeclared key", "Redis refuses scripts that use keys which they did not declare", False),
        (r"NOPERM .*(?:one of the keys|access a key)|.*can't access at least one of the keys|ACL failure.*access a key|"
         r"No permissions to access a key", "the user of redis_url may not access the keys scc:* in Redis", False),
        (r"NOPERM\b|ACL failure in script|The user executing the script|(?:this user|User \S+) has no permissions",
         "the user of redis_url lacks rights in Redis", False),
        (r"[Uu]nknown (?:Redis )?command", "Redis does not know, or does not allow, a command that is needed", False),
    )
)  # fmt: skip
_COMMAND = re.compile(r"(?:run the|unknown command|Unknown Redis command) .([A-Za-z|_-]{1,30})['`] ?")


#: What our own scripts refuse with (`lua/include/ownership.lua`), before they have written anything.
_OWNERSHIP: dict[str, type[ServiceError]] = {
    "OTHERPROJECT": Unauthorized,
    "OTHERLAYOUT": LayoutChanged,
    "NOOWNER": StateIncomplete,
}


class Redirection(NamedTuple):
    """Where a slot is (MOVED), or where keys of it that are not here are already (ASK); no `host` is the one that replied."""

    kind: str
    slot: int
    host: str
    port: int


def is_transient(reply: object) -> bool:
    """Whether a reply is a refusal that another attempt, later or elsewhere, may not meet."""
    return isinstance(reply, hiredis.ReplyError) and _PASSING.match(_body(str(reply))) is not None


def is_demoted(reply: object) -> bool:
    """Whether a reply, or the text of one, is the refusal of a server that is not the master, or is cut off."""
    text = reply if isinstance(reply, str) else str(reply) if isinstance(reply, hiredis.ReplyError) else ""
    return _DEMOTED.match(_body(text)) is not None


def is_migrating(reply: object) -> bool:
    """Whether a reply says that a slot is on its way, and not all keys of the command are at either end."""
    return isinstance(reply, hiredis.ReplyError) and _IS_MOVING.match(_body(str(reply))) is not None


def redirection(reply: object) -> Redirection | None:
    """The redirection that a reply of a cluster's node is, if it is one."""
    match = _REDIRECTION.fullmatch(str(reply)) if isinstance(reply, hiredis.ReplyError) else None
    return Redirection(match[1], int(match[2]), match[3], int(match[4])) if match else None


class WrongType(StoreDamaged, redis_errors.ResponseError):
    """A key has another type than its name says: somebody wrote it by hand. Its text is Redis's, without what it may quote."""

    def __init__(self, text: str, *, is_uncertain: bool) -> None:
        super().__init__(detail=WriteUncertain.detail_text if is_uncertain else None, may_pass=False)
        if is_uncertain:
            self.reason = WriteUncertain.reason
        self.text = text

    def __str__(self) -> str:
        return self.text


def refusal(text: str) -> Cause | None:
    """The cause that the text of an error reply names; None where it is no refusal."""
    body = _body(text)
    for pattern, cause in _REFUSALS:
        if pattern.match(body):
            command = _COMMAND.search(body)
            # The name of a command is ours; what follows it in the text may be a config.
            return Cause(f"{cause.sentence}: {command[1].upper()}", cause.may_pass) if command else cause
    return None


def translated(error: hiredis.ReplyError, *, writes: bool) -> Exception:
    """The error that a caller of the link gets for it; `writes` is whether its command may have changed something."""
    text = str(error)
    if text.startswith("NOSCRIPT"):
        return redis_errors.NoScriptError("NOSCRIPT No matching script")
    body = _body(text)
    if (refused := _OWNERSHIP.get(body.partition(" ")[0])) is not None:
        return refused()
    if body.startswith("WRONGTYPE "):
        # A script may have met the key after its first write, and Redis does not roll it back.
        return WrongType(safe_text(text), is_uncertain=writes and _IN_SCRIPT.search(text) is not None)
    cause = refusal(text)
    if cause is None:
        return redis_errors.ResponseError(safe_text(text))
    if body.startswith("OOM "):
        return StoreFull(diagnosis=cause.sentence)
    # Redis does not roll a script back: a right that it lacks may be missed in the middle of its writes.
    uncertain = writes and not cause.may_pass and _IN_SCRIPT.search(text) is not None
    kind = WriteUncertain if uncertain else StoreUnavailable
    return kind(diagnosis=cause.sentence, may_pass=cause.may_pass)


def safe_text(text: str) -> str:
    """An error reply without anything that it may quote: its beginning in plain words, and the script's line."""
    line = _IN_SCRIPT.search(text)
    body = re.sub(r"^user_script: ?\d+: ?", "", _body(text) if line else text).partition(" script:")[0]
    plain = _NOT_PLAIN.split(body, maxsplit=1)[0].strip(" ,")
    return f"{plain} (line {line[1]} of a script)" if line else plain


def _body(text: str) -> str:
    """An error without what Redis 6.2 wraps around it."""
    return _WRAPPED.sub("", text, count=1)
