"""Where the store is: the forms of `redis_url`, and how to make a connection to each of its servers.

    unix://[user:password@]/path                               one server, on a Unix socket
    redis://[user:password@]host[:port][/db]                   one server
    redis+cluster://[user:password@]host[:port][,…]            a Redis Cluster, by some of its nodes
    redis+sentinel://[user:password@]host[:port][,…]/name[/db] the master that Sentinels know by this name

`rediss` instead of `redis` means TLS. The query holds options of the connections: `db`, `username`, `password`, redis-py's
`ssl_…` options, and `sentinel_username` and `sentinel_password` for Sentinels with credentials of their own.
"""

import os
import re
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from ipaddress import AddressValueError, IPv6Address
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from service.errors import StartupError

#: Host and port of a server.
Endpoint = tuple[str, int]

REDIS_PORT, SENTINEL_PORT = 6379, 26379

#: The parts of a URL as in RFC 3986, appendix B. `urlsplit` does not support a list of hosts. Whether it refuses one, or a
#: bracket in a password, or an address with a zone, differs between releases of Python.
_URL = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?", re.DOTALL)
_SCHEME = re.compile(r"(?P<unix>unix)|redis(?P<tls>s)?(?:\+(?P<kind>cluster|sentinel))?")
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]\s]*))(?::(?P<port>[0-9]{1,5}))?")
_OPTIONS = {"db", "username", "password"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """A store's address. `kind` is "standalone", "cluster" or "sentinel".

    `path` is that of a Unix socket; then there are no `hosts`. `master_name` is what the Sentinels call the master. `options`
    are for connections to Redis servers, `sentinel_options` for those to Sentinels.
    """

    kind: str
    hosts: tuple[Endpoint, ...] = ()
    _: KW_ONLY
    tls: bool = False
    path: str = ""
    master_name: str = ""
    # They contain passwords: keep them out of the repr.
    options: Options = field(default_factory=dict, repr=False)
    sentinel_options: Options = field(default_factory=dict, repr=False)

    def new_connection(self, endpoint: Endpoint | None, *, seconds: float, sentinel: bool = False) -> AbstractConnection:
        """A connection that is not open yet; each of its steps takes at most `seconds`. No `endpoint` means the Unix socket."""
        options = self.sentinel_options if sentinel else self.options
        common: Options = {
            "protocol": 2,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            # Only the client decides on retries: a script that ran twice would write twice.
            "retry": Retry(NoBackoff(), 0),
        }
        if endpoint is None:
            return UnixDomainSocketConnection(path=self.path, **common, **options)
        kind = SSLConnection if self.tls else Connection
        return kind(host=endpoint[0], port=endpoint[1], **common, **options)


def parse(url: str) -> Address:
    """Parse a `redis_url`.

    Raises:
        StartupError: it is not valid. The message shows no part of the URL, which may contain a password.
    """
    parts, scheme = _split(url.strip())
    kind, tls = scheme["kind"] or "standalone", bool(scheme["tls"])
    userinfo, _, netloc = parts["authority"].rpartition("@")
    options, sentinel_options = _options(parts["query"] or "", userinfo, kind, tls)
    if scheme["unix"]:
        path = os.fsdecode(unquote_to_bytes(parts["path"].encode()))
        if netloc or not path or "\0" in path:
            raise _error("needs the path of a socket: unix:///path")
        return _validate(Address(kind, path=path, options=options))
    path = unquote(parts["path"])
    hosts = _hosts(netloc, kind)
    names = [name for name in path.split("/") if name]
    master_name = ""
    if kind == "sentinel":
        if not names:
            raise _error("needs the name of the master after the Sentinels: redis+sentinel://host:port/name")
        master_name = names.pop(0)
    if names and "db" not in options:
        options["db"] = _database(names)
    if kind == "cluster" and options.get("db"):
        raise _error("names a database, but a cluster has only database 0")
    return _validate(Address(kind, hosts, tls=tls, master_name=master_name, options=options, sentinel_options=sentinel_options))


def _error(problem: str) -> StartupError:
    return StartupError(f"setting redis_url {problem}")


def _split(url: str) -> tuple[re.Match[str], re.Match[str]]:
    """The parts of a URL, and the parts of its scheme."""
    parts = _URL.match(url)
    scheme = _SCHEME.fullmatch(parts["scheme"].lower()) if parts else None
    if parts is None or scheme is None:
        raise _error("must begin with redis://, rediss:// or unix://, or with redis+cluster:// or redis+sentinel://")
    if parts.end() < len(url):
        raise _error("contains a #; write it as %23")
    return parts, scheme


def _hosts(netloc: str, kind: str) -> tuple[Endpoint, ...]:
    default = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    hosts = []
    for host in netloc.split(","):
        match = _HOST.fullmatch(host)
        if match is None and host.count("[") != host.count("]"):
            raise _error("is not a valid URL: its brackets are unbalanced")
        port = int(match["port"] or default) if match else 0
        if match is None or port > 65535 or not (kind == "standalone" or match["ipv6"] or match["name"]):
            raise _error("must name servers as host:port, separated by commas")
        hosts.append((_ipv6(match["ipv6"]) if match["name"] is None else _name(match["name"]), port))
    if kind == "standalone" and len(hosts) > 1:
        raise _error("names several servers, which only redis+cluster:// and redis+sentinel:// allow")
    return tuple(hosts)


def _ipv6(literal: str) -> str:
    """The address between brackets. The % before a zone (`fe80::1%eth0`) may be escaped, as RFC 6874 requires."""
    address = unquote(literal)
    try:
        IPv6Address(address)
    except AddressValueError:
        raise _error("has brackets around something that is not an IPv6 address") from None
    return address


def _name(escaped: str) -> str:
    """A host name that the resolver accepts."""
    name = unquote(escaped)
    with suppress(UnicodeError):
        name.encode("idna")
        if name.isprintable() and " " not in name:
            return name or "localhost"
    raise _error("has an invalid host name")


def _database(names: list[str]) -> int:
    if len(names) > 1 or not names[0].isdecimal():
        raise _error("must end with a database number, or with no path")
    return int(names[0])


def _options(query: str, userinfo: str, kind: str, tls: bool) -> tuple[Options, Options]:
    """The options of connections to Redis servers and to Sentinels."""
    try:
        options: Options = dict(parse_url(f"redis://?{query}"))
    except ValueError:
        raise _error("has an option with an invalid value") from None
    allowed = _OPTIONS | (_SENTINEL_OPTIONS if kind == "sentinel" else set())
    for name in options:
        if name.startswith("ssl_") and not tls:
            raise _error(f"has the option {name}, which only rediss:// accepts")
        if name not in allowed and not name.startswith("ssl_"):
            raise _error("has an unknown option in its query")
    user, _, password = userinfo.partition(":")
    options |= {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}
    sentinel_options: Options = {}
    if kind == "sentinel":
        sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in _SENTINEL_OPTIONS & set(options):
        sentinel_options[name.removeprefix("sentinel_")] = options.pop(name)
    return options, sentinel_options


def _validate(address: Address) -> Address:
    """Return `address` if redis-py accepts its options."""
    try:
        for sentinel in (False, True):
            address.new_connection(address.hosts[0] if address.hosts else None, seconds=1, sentinel=sentinel)
    except (TypeError, ValueError, RedisError):
        raise _error("has a TLS option that is unknown or has an invalid value") from None
    return address
