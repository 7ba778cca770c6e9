"""`redis_url`: what each form means, and that anything else is refused in one sentence that shows no part of it."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from service.errors import StartupError
from service.redis_client.url import Address, parse

#: Part of URLs whose message must not show it.
SECRET = "hush-Hush"

URLS: dict[str, tuple[Address, dict[str, object], dict[str, object]]] = {
    "unix:///run/redis.sock": (Address("standalone", path="/run/redis.sock"), {}, {}),
    "unix://me:p%40ss@/a%20b/redis.sock?db=2": (
        Address("standalone", path="/a b/redis.sock"), {"username": "me", "password": "p@ss", "db": 2}, {}
    ),
    "redis://": (Address("standalone", (("localhost", 6379),)), {}, {}),
    "redis://db.example": (Address("standalone", (("db.example", 6379),)), {}, {}),
    "redis://:p%2Fs,s@db.example:6380/3": (
        Address("standalone", (("db.example", 6380),)), {"password": "p/s,s", "db": 3}, {}
    ),
    "redis://[::1]:7000?db=1&username=me": (
        Address("standalone", (("::1", 7000),)), {"db": 1, "username": "me"}, {}
    ),
    "rediss://db.example?ssl_cert_reqs=none&ssl_check_hostname=false": (
        Address("standalone", (("db.example", 6379),), tls=True), {"ssl_cert_reqs": "none", "ssl_check_hostname": False}, {},
    ),
    "redis+cluster://a:7000,b,[fe80::1]:7002": (
        Address("cluster", (("a", 7000), ("b", 6379), ("fe80::1", 7002))), {}, {}
    ),
    "rediss+cluster://me:pass@a:7000,b:7001/0?ssl_ca_certs=/ca.pem": (
        Address("cluster", (("a", 7000), ("b", 7001)), tls=True),
        {"username": "me", "password": "pass", "db": 0, "ssl_ca_certs": "/ca.pem"},
        {},
    ),
    "redis+cluster://[::1],a,[FE80::A:1]": (
        Address("cluster", (("::1", 6379), ("a", 6379), ("FE80::A:1", 6379))), {}, {}
    ),
    "redis+sentinel://a,[fe80::1%25eth0]:7000,[fe80::2%eth0]/store": (
        Address("sentinel", (("a", 26379), ("fe80::1%eth0", 7000), ("fe80::2%eth0", 26379)), master_name="store"), {}, {}
    ),
    "redis://us[er:p[x]@]y%5D@[::ffff:1.2.3.4]:7000": (
        Address("standalone", (("::ffff:1.2.3.4", 7000),)), {"username": "us[er", "password": "p[x]@]y]"}, {}
    ),
    "redis://:%zz%2525\uff0f\t@h": (Address("standalone", (("h", 6379),)), {"password": "%zz%25\uff0f\t"}, {}),
    "REDIS+Cluster://A.Example,b": (Address("cluster", (("A.Example", 6379), ("b", 6379))), {}, {}),
    " redis://b\u00fccher.example\n": (Address("standalone", (("b\u00fccher.example", 6379),)), {}, {}),
    "redis+sentinel://a,b:26380/store": (
        Address("sentinel", (("a", 26379), ("b", 26380)), master_name="store"), {}, {}
    ),
    "rediss+sentinel://me:pass@a/my%20store/4?sentinel_username=s&sentinel_password=t&ssl_cert_reqs=none": (
        Address("sentinel", (("a", 26379),), tls=True, master_name="my store"),
        {"username": "me", "password": "pass", "db": 4, "ssl_cert_reqs": "none"},
        {"username": "s", "password": "t", "ssl_cert_reqs": "none"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_a_url_gives_servers_and_options(url: str) -> None:
    address, options, sentinel_options = URLS[url]
    parsed = parse(url)
    assert repr(parsed) == repr(address)
    assert parsed.options == options
    assert parsed.sentinel_options == sentinel_options


@pytest.mark.parametrize("url", URLS)
def test_a_connection_has_the_options_of_the_url_and_no_retries(url: str) -> None:
    address, options, _ = URLS[url]
    connection = parse(url).new_connection(address.hosts[0] if address.hosts else None, seconds=0.7)
    assert (connection.db, connection.password, connection.protocol) == (options.get("db", 0), options.get("password"), 2)
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (0.7, 0.7)
    assert connection.retry.get_retries() == 0
    if address.path:
        assert isinstance(connection, UnixDomainSocketConnection)
        assert connection.path == address.path
    else:
        assert isinstance(connection, SSLConnection if address.tls else Connection)
        assert isinstance(connection, SSLConnection) is address.tls
        assert (connection.host, connection.port) == address.hosts[0]


BAD = {
    "nowhere": "must begin with",
    "": "must begin with",
    "http://h": "must begin with",
    "redis+unix:///a": "must begin with",
    "unix+cluster:///a": "must begin with",
    f"redis://:{SECRET}@[::1": "brackets are unbalanced",
    f"redis+cluster://:{SECRET}@a,[::1": "brackets are unbalanced",
    f"redis+cluster://:{SECRET}@a,::1]": "brackets are unbalanced",
    f"redis+cluster://:{SECRET}@a,[::1]x:7": "host:port",
    f"redis+cluster://:{SECRET}@a,x[::1]": "host:port",
    f"redis+cluster://:{SECRET}@a,[[::1]]": "host:port",
    f"redis+cluster://:{SECRET}@a,[]": "host:port",
    f"redis://:{SECRET}@[]": "IPv6 address",
    f"redis://:{SECRET}@[1.2.3.4]": "IPv6 address",
    f"redis://:{SECRET}@[v1.a]": "IPv6 address",
    f"redis://:{SECRET}@[dead]": "IPv6 address",
    f"redis://:{SECRET}@[fe80::1%]": "IPv6 address",
    f"redis://:{SECRET}@[fe80::1%25a%25b]": "IPv6 address",
    f"redis://:{SECRET}@h:\u0661": "host:port",
    f"redis://:{SECRET}@a..b": "invalid host name",
    f"redis://:{SECRET}@a%00b": "invalid host name",
    f"redis://:{SECRET}@a%20b": "invalid host name",
    f"redis://:{SECRET}@{'a' * 64}": "invalid host name",
    f"redis://:a#{SECRET}@h": "%23",
    f"redis://h?password=a#{SECRET}": "%23",
    f"unix:///{SECRET}%00": "needs the path",
    "redis:h": "must begin with",
    "unix://": "needs the path",
    f"unix://{SECRET}/a": "needs the path",
    f"redis://:{SECRET}@h:99999": "host:port",
    f"redis://:{SECRET}@h:x": "host:port",
    f"redis://h:1:{SECRET}": "host:port",
    f"redis://:{SECRET}@h,i": "several servers",
    f"redis://:{SECRET}@h/a": "database number",
    f"redis://:{SECRET}@h/1/2": "database number",
    f"redis://:{SECRET}@h?db=a": "invalid value",
    f"redis://h?{SECRET}=1": "unknown option",
    f"redis://h?socket_timeout=1&password={SECRET}": "unknown option",
    f"redis://h?sentinel_password={SECRET}": "unknown option",
    f"redis://:{SECRET}@h?ssl_cert_reqs=none": "only rediss://",
    f"rediss://:{SECRET}@h?ssl_wrong=1": "TLS option",
    f"rediss://:{SECRET}@h?ssl_cert_reqs={SECRET}": "TLS option",
    f"redis+cluster://:{SECRET}@": "host:port",
    f"redis+cluster://:{SECRET}@a,,b": "host:port",
    f"redis+cluster://:{SECRET}@a/1": "only database 0",
    f"redis+cluster://:{SECRET}@a?db=2": "only database 0",
    f"redis+sentinel://:{SECRET}@a": "name of the master",
    f"redis+sentinel://:{SECRET}@a/": "name of the master",
    f"redis+sentinel://:{SECRET}@a/store/x": "database number",
}


@pytest.mark.parametrize("url", BAD)
def test_an_invalid_url_is_refused_in_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(StartupError, match="setting redis_url") as raised:
        parse(url)
    assert BAD[url] in raised.value.message
    assert SECRET not in raised.value.message
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@given(st.text(max_size=30), st.sampled_from(["", "redis://", "redis+cluster://", "rediss+sentinel://a/", "unix://"]))
def test_any_text_is_parsed_or_refused(text: str, start: str) -> None:
    with suppress(StartupError):
        parse(start + text)


def test_the_repr_of_an_address_shows_no_password() -> None:
    text = repr(parse(f"redis+sentinel://me:{SECRET}@a/store?sentinel_password={SECRET}"))
    assert SECRET not in text
