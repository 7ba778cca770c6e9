"""Why Redis cannot be used, in a sentence for the operator that shows nothing of the URL and of what was sent."""

import errno
import os
import socket
import ssl
from collections.abc import Iterator

import hiredis
from redis.exceptions import InvalidResponse, RedisError

from service.redis_client import node, replies, topology
from service.redis_client.multiplexer import ConnectionLost, TimedOut, TooManyInFlight
from service.redis_client.replies import Cause

UNKNOWN = Cause("Redis cannot be reached, or refuses to work, at the address in redis_url", may_pass=True)
NO_ANSWER = Cause("Redis does not answer within command_timeout", may_pass=True)
NO_CONNECTION = Cause("no connection to the address in redis_url is made within command_timeout", may_pass=True)
NOT_TLS = Cause("the server in redis_url does not speak TLS; write redis:// in place of rediss://", may_pass=False)

#: By type, the most telling first.
_BY_TYPE: tuple[tuple[type[BaseException], Cause], ...] = (
    (ssl.SSLCertVerificationError, Cause("the certificate of the server in redis_url cannot be verified", may_pass=False)),
    (socket.gaierror, Cause("the host name in redis_url cannot be resolved", may_pass=True)),
    (ConnectionRefusedError, Cause("nothing listens at the address in redis_url", may_pass=True)),
    (FileNotFoundError, Cause("the socket in redis_url does not exist", may_pass=True)),
    (PermissionError, Cause("the socket in redis_url may not be opened by this user", may_pass=False)),
    (node.NotReplicated, Cause("fewer replicas than min_replicas acknowledge a write", may_pass=True)),
    (topology.UnknownMaster, Cause("the Sentinels in redis_url know no master by the name in it", may_pass=True)),
    (topology.NoMaster, Cause("no server that the Sentinels name says that it is a master", may_pass=True)),
    (topology.SlotsUnassigned, Cause("the Redis Cluster has slots that no node serves", may_pass=True)),
    (TooManyInFlight, Cause("too many commands wait for Redis", may_pass=True)),
    (TimedOut, NO_ANSWER),
    (ConnectionLost, Cause("Redis closed the connection", may_pass=True)),
)
#: What redis-py's ConnectionError says of a server that hangs up; in the greeting it may want TLS.
_HUNG_UP = (
    "the server in redis_url closes connections before it answers; if it expects TLS, write rediss:// in place of redis://"
)


def cause_of(error: BaseException) -> Cause:
    """The cause of an error of the link, from all errors behind it."""
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
    """The error and all behind it, the innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _of_connection(chain: list[BaseException]) -> Cause:
    """The cause why a connection could not be made, where its type alone does not tell."""
    for each in reversed(chain):
        if isinstance(each, ssl.SSLError):
            plain = each.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
            return NOT_TLS if plain else Cause("the TLS handshake with the server in redis_url fails", may_pass=False)
        if isinstance(each, InvalidResponse):
            # 0x15 begins a TLS alert.
            expects_tls = '"\\x15"' in str(each)
            return Cause(
                "the server in redis_url expects TLS; write rediss:// in place of redis://"
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
