"""What the errors mean that Redis replies."""

import re
from typing import NamedTuple

import hiredis
from redis import exceptions as redis_errors

from service.errors import StoreDamaged, StoreFull, StoreUnavailable

# Replies by which Redis refuses to work for now, without having done anything; 6.2 wraps those to a script's own commands.
_WRAPPED = r"(?:ERR Error running script .*?: -)?"
# These may be over soon, or not be met at the server that has taken over.
_PASSES = r"LOADING|READONLY|MASTERDOWN|NOREPLICAS|CLUSTERDOWN|TRYAGAIN"
# A script met a key of a slot on its way that is not there; those that write look for one before they do.
_MOVING = r"ERR .*non local key in a cluster node"
_PASSING = re.compile(rf"(?:{_WRAPPED}(?:{_PASSES})|{_MOVING})\b")
_REFUSAL = re.compile(rf"{_WRAPPED}(?:{_PASSES}|BUSY|MISCONF)\b")
_OUT_OF_MEMORY = re.compile(rf"{_WRAPPED}OOM\b")
_IS_MOVING = re.compile(rf"(?:TRYAGAIN|{_MOVING})\b")
# A key is not of the type that its name says, in a command of its own or of a script.
_WRONG_TYPE = re.compile(r"(?:ERR Error running script .*?: )?-?WRONGTYPE ")
_REDIRECTION = re.compile(r"(MOVED|ASK) (\d+) (.*):(\d+)")


class Redirection(NamedTuple):
    """Where a slot is (MOVED), or where keys of it that are not here are already (ASK); no `host` is the one that replied."""

    kind: str
    slot: int
    host: str
    port: int


def passes(reply: object) -> bool:
    """Whether a reply is a refusal that another attempt, later or elsewhere, may not meet."""
    return isinstance(reply, hiredis.ReplyError) and _PASSING.match(str(reply)) is not None


def is_starting(reply: object) -> bool:
    """Whether a reply is the refusal of a server that has not got its data yet."""
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith(("LOADING ", "MASTERDOWN "))


def is_moving(reply: object) -> bool:
    """Whether a reply says that a slot is on its way, and not all keys of the command are at either end."""
    return isinstance(reply, hiredis.ReplyError) and _IS_MOVING.match(str(reply)) is not None


def redirection(reply: object) -> Redirection | None:
    """The redirection that a reply of a cluster's node is, if it is one."""
    match = _REDIRECTION.fullmatch(str(reply)) if isinstance(reply, hiredis.ReplyError) else None
    return Redirection(match[1], int(match[2]), match[3], int(match[4])) if match else None


class WrongType(StoreDamaged, redis_errors.ResponseError):
    """A key has another type than its name says: somebody wrote it by hand. Its text is Redis's."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text


def translated(error: hiredis.ReplyError) -> Exception:
    """The error that a caller of the link gets for it."""
    text = str(error)
    if _OUT_OF_MEMORY.match(text):
        return StoreFull()
    if _REFUSAL.match(text):
        return StoreUnavailable()
    if _WRONG_TYPE.match(text):
        return WrongType(text)
    return redis_errors.NoScriptError(text) if text.startswith("NOSCRIPT") else redis_errors.ResponseError(text)
