"""Where the store is: what `redis_url` may say, and how a connection to each of its servers is made.

    unix://[user:password@]/path                               one server, on a Unix socket
    redis://[user:password@]host[:port][/db]                   one server
    redis+cluster://[user:password@]host[:port][,…]            a Redis Cluster, by some of its nodes
    redis+sentinel://[user:password@]host[:port][,…]/name[/db] the master that Sentinels know by that name

`rediss` in place of `redis` is TLS. The query holds options of the connections: `db`, `username`, `password`,
redis-py's `ssl_…` options, and `sentinel_username` and `sentinel_password` where Sentinels want their own.
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

#: The parts of a URL as in RFC 3986, appendix B. `urlsplit` takes no list of hosts: whether it refuses one, a bracket in a
#: password, or an address with a zone differs from one release of Python to the next.
_URL = re.compile(r"(?P<scheme>[^:/?#]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?", re.DOTALL)
_SCHEME = re.compile(r"(?P<unix>unix)|redis(?P<tls>s)?(?:\+(?P<kind>cluster|sentinel))?")
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]\s]*))(?::(?P<port>[0-9]{1,5}))?")
_OPTIONS = {"db", "username", "password"}
_SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """A store's address. `kind` is "one", "cluster" or "sentinel"; `path` is a Unix socket's, and then there are no `hosts`.

    `options` are those of connections to Redis servers, `sentinel_options` of those to Sentinels.
    """

    kind: str
    hosts: tuple[Endpoint, ...] = ()
    _: KW_ONLY
    tls: bool = False
    path: str = ""
    service: str = ""
    # Passwords are in them: never shown.
    options: Options = field(default_factory=dict, repr=False)
    sentinel_options: Options = field(default_factory=dict, repr=False)

    def connection(self, endpoint: Endpoint | None, *, seconds: float, sentinel: bool = False) -> AbstractConnection:
        """A connection, not yet open, to the server at `endpoint`, or to the socket; it gets `seconds` for each step."""
        options = self.sentinel_options if sentinel else self.options
        common: Options = {
            "protocol": 2,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            # What is sent again is decided by the link: a script that ran twice would write twice.
            "retry": Retry(NoBackoff(), 0),
        }
        if endpoint is None:
            return UnixDomainSocketConnection(path=self.path, **common, **options)
        kind = SSLConnection if self.tls else Connection
        return kind(host=endpoint[0], port=endpoint[1], **common, **options)


def parse(url: str) -> Address:
    """The address that a URL describes.

    Raises:
        StartupError: it describes none. No message shows a part of the URL: a password may be in it.
    """
    parts, scheme = _split(url.strip())
    kind, tls = scheme["kind"] or "one", bool(scheme["tls"])
    userinfo, _, netloc = parts["authority"].rpartition("@")
    options, sentinel_options = _options(parts["query"] or "", userinfo, kind, tls)
    if scheme["unix"]:
        path = os.fsdecode(unquote_to_bytes(parts["path"].encode()))
        if netloc or not path or "\0" in path:
            raise _bad("needs the path of a socket: unix:///path")
        return _checked(Address(kind, path=path, options=options))
    path = unquote(parts["path"])
    hosts = _hosts(netloc, kind)
    names = [name for name in path.split("/") if name]
    service = ""
    if kind == "sentinel":
        if not names:
            raise _bad("needs the name of the master after the Sentinels: redis+sentinel://host:port/name")
        service = names.pop(0)
    if names and "db" not in options:
        options["db"] = _database(names)
    if kind == "cluster" and options.get("db"):
        raise _bad("names a database, and a cluster has none but 0")
    return _checked(Address(kind, hosts, tls=tls, service=service, options=options, sentinel_options=sentinel_options))


def _bad(what: str) -> StartupError:
    return StartupError(f"setting redis_url {what}")


def _split(url: str) -> tuple[re.Match[str], re.Match[str]]:
    """The parts of a URL, and those of its scheme."""
    parts = _URL.match(url)
    scheme = _SCHEME.fullmatch(parts["scheme"].lower()) if parts else None
    if parts is None or scheme is None:
        raise _bad("must begin with redis://, rediss:// or unix://, or with redis+cluster:// or redis+sentinel://")
    if parts.end() < len(url):
        raise _bad("contains a #; write it as %23")
    return parts, scheme


def _hosts(netloc: str, kind: str) -> tuple[Endpoint, ...]:
    default = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    hosts = []
    for place in netloc.split(","):
        match = _HOST.fullmatch(place)
        if match is None and place.count("[") != place.count("]"):
            raise _bad("cannot be read as a URL: a bracket has no counterpart")
        port = int(match["port"] or default) if match else 0
        if match is None or port > 65535 or not (kind == "one" or match["ipv6"] or match["name"]):
            raise _bad("must name servers as host:port, with commas between several")
        hosts.append((_ipv6(match["ipv6"]) if match["name"] is None else _name(match["name"]), port))
    if kind == "one" and len(hosts) > 1:
        raise _bad("names several servers, which only redis+cluster:// and redis+sentinel:// do")
    return tuple(hosts)


def _ipv6(literal: str) -> str:
    """The address between brackets. The % before a zone (`fe80::1%eth0`) may be escaped, as RFC 6874 wants it."""
    address = unquote(literal)
    try:
        IPv6Address(address)
    except AddressValueError:
        raise _bad("has something other than an IPv6 address in brackets") from None
    return address


def _name(escaped: str) -> str:
    """The name of a host, as the resolver takes it."""
    name = unquote(escaped)
    with suppress(UnicodeError):
        name.encode("idna")
        if name.isprintable() and " " not in name:
            return name or "localhost"
    raise _bad("has a host name that no resolver would take")


def _database(names: list[str]) -> int:
    if len(names) > 1 or not names[0].isdecimal():
        raise _bad("must end with the number of a database, or with no path")
    return int(names[0])


def _options(query: str, userinfo: str, kind: str, tls: bool) -> tuple[Options, Options]:
    """The options of connections to Redis servers and to Sentinels."""
    try:
        options: Options = dict(parse_url(f"redis://?{query}"))
    except ValueError:
        raise _bad("has an option whose value cannot be read") from None
    allowed = _OPTIONS | (_SENTINEL_OPTIONS if kind == "sentinel" else set())
    for name in options:
        if name.startswith("ssl_") and not tls:
            raise _bad(f"has the option {name}, which only rediss:// takes")
        if name not in allowed and not name.startswith("ssl_"):
            raise _bad("has an option in its query that is not known")
    user, _, password = userinfo.partition(":")
    options |= {name: unquote(value) for name, value in (("username", user), ("password", password)) if value}
    sentinel_options: Options = {}
    if kind == "sentinel":
        sentinel_options = {name: value for name, value in options.items() if name.startswith("ssl_")}
    for name in _SENTINEL_OPTIONS & set(options):
        sentinel_options[name.removeprefix("sentinel_")] = options.pop(name)
    return options, sentinel_options


def _checked(address: Address) -> Address:
    """`address`, once redis-py takes its options."""
    try:
        for sentinel in (False, True):
            address.connection(address.hosts[0] if address.hosts else None, seconds=1, sentinel=sentinel)
    except (TypeError, ValueError, RedisError):
        raise _bad("has an option of TLS that is not known, or whose value cannot be used") from None
    return address
