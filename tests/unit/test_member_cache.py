"""The cache of members: what it holds, and how much memory that takes."""

import subprocess
import sys

import orjson
import pytest

from service.configs import document
from service.configs.limits import Limits

#: Fills the cache of members, and prints the growth of the process in bytes.
_FILL = """
import resource
from pathlib import Path
from service.configs import document
from service.configs.limits import Limits

def pages():
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])

document.Document.build({"a": 0}, b'{"a":0}', Limits())
before = pages()
for number in range(document.CACHED_MEMBERS - 1):
    document.Document.build({"k": number}, b'{"k":%d}' % number, Limits())
assert len(document._cache) == document.CACHED_MEMBERS
print((pages() - before) * resource.getpagesize())
"""


def test_a_cached_member_takes_hundreds_of_bytes_and_not_thousands() -> None:
    # In a separate process: another one may have memory to fill first.
    printed = subprocess.run([sys.executable, "-c", _FILL], capture_output=True, text=True, check=True).stdout
    assert int(printed) / document.CACHED_MEMBERS < 1500


def members_of(raw: bytes) -> tuple[document.Member, ...]:
    return document.Document.build(orjson.loads(raw), raw, Limits()).members


def test_a_member_is_cached_up_to_its_largest_size_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_cache", {})
    room = document.CACHED_SIZE - len("key") - len('""')
    fits, too_large = (b'{"key":"%b"}' % (b"x" * size) for size in (room, room + 1))
    assert members_of(fits)[0] is members_of(fits)[0]
    assert members_of(too_large)[0] is not members_of(too_large)[0]
    long_key = b'{"%b":1}' % (b"k" * document.CACHED_SIZE)
    assert members_of(long_key)[0] is not members_of(long_key)[0]


def test_no_more_members_are_cached_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: dict[object, object] = {}
    monkeypatch.setattr(document, "_cache", cache)
    monkeypatch.setattr(document, "CACHED_MEMBERS", 3)
    sizes = []
    for number in range(10):
        members_of(b'{"k":%d}' % number)
        sizes.append(len(cache))
    assert max(sizes) == 3
