"""Why Redis is unavailable, as one sentence for the operator that shows no part of the URL or of a command."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator

import hiredis
from redis.exceptions import InvalidResponse

from service.redis_client import replies
from service.redis_client.errors import (
    ConnectionLost,
    NoMaster,
    RedisError,
    SlotsUnassigned,
    TimedOut,
    TooFewReplicas,
    TooManyInFlight,
    UnknownMaster,
)
from service.redis_client.replies import Cause

UNKNOWN = Cause("Redis at the address in redis_url cannot be reached, or refuses commands", may_pass=True)
NO_ANSWER = Cause("Redis did not answer within command_timeout", may_pass=True)
NO_CONNECTION = Cause("no connection to the address in redis_url within command_timeout", may_pass=True)
NOT_TLS = Cause("the server in redis_url does not speak TLS; write redis:// instead of rediss://", may_pass=False)

#: By type, the most specific first.
_BY_TYPE: tuple[tuple[type[BaseException], Cause], ...] = (
    (ssl.SSLCertVerificationError, Cause("the certificate of the server in redis_url cannot be verified", may_pass=False)),
    (socket.gaierror, Cause("the host name in redis_url cannot be resolved", may_pass=True)),
    (ConnectionRefusedError, Cause("nothing is listening at the address in redis_url", may_pass=True)),
    (FileNotFoundError, Cause("the socket in redis_url does not exist", may_pass=True)),
    (PermissionError, Cause("this user may not open the socket in redis_url", may_pass=False)),
    (TooFewReplicas, Cause("fewer than min_replicas replicas acknowledged a write (see redis_url)", may_pass=True)),
    (UnknownMaster, Cause("the Sentinels in redis_url know no master of the name in redis_url", may_pass=True)),
    (NoMaster, Cause("the server that the Sentinels name is not a master", may_pass=True)),
    (SlotsUnassigned, Cause("the Redis Cluster has slots that no node serves", may_pass=True)),
    (TooManyInFlight, Cause("too many commands are waiting for Redis", may_pass=True)),
    (TimedOut, NO_ANSWER),
    (ConnectionLost, Cause("Redis closed the connection", may_pass=True)),
)
#: For redis-py's ConnectionError when a server hangs up; during the greeting this may mean that it expects TLS.
_HUNG_UP = (
    "the server in redis_url closes connections before it answers; if it expects TLS, write rediss:// instead of redis://"
)


def cause_of(error: BaseException) -> Cause:
    """The cause of an error of this client, from the error and its chain of causes."""
    chain = list(_chain(error))
    for each in chain:
        cause = replies.refusal(str(each)) if isinstance(each, hiredis.ReplyError | RedisError) else None
        if cause is not None:
            return cause
    for kind, cause in _BY_TYPE:
        if any(isinstance(each, kind) for each in chain):
            return cause
    return _of_connection(chain)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, its cause or context, and so on; the innermost comes last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_connection(chain: list[BaseException]) -> Cause:
    """The cause of a failed connection if the types of its errors alone do not give it."""
    for each in reversed(chain):
        if isinstance(each, ssl.SSLError):
            is_plaintext = each.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
            return NOT_TLS if is_plaintext else Cause("the TLS handshake with the server in redis_url failed", may_pass=False)
        if isinstance(each, InvalidResponse):
            # A TLS alert begins with 0x15.
            expects_tls = '"\\x15"' in str(each)
            return Cause(
                "the server in redis_url expects TLS; write rediss:// instead of redis://"
                if expects_tls
                else "the server in redis_url is not Redis",
                may_pass=False,
            )
        if isinstance(each, ConnectionResetError) or str(each).startswith("Connection closed by server"):
            return Cause(_HUNG_UP, may_pass=True)
        if isinstance(each, TimeoutError) or str(each).startswith("Timeout"):
            return NO_CONNECTION
        if isinstance(each, OSError) and each.errno is not None and each.errno in errno.errorcode:
            return Cause(f"the address in redis_url cannot be reached: {os.strerror(each.errno)}", may_pass=True)
    return UNKNOWN
