"""Terms in more blocks than Lua's C stack takes arguments: lists are as correct as with few blocks."""

from pathlib import Path

import pytest

from service.configs.containment import Filter
from service.configs.limits import Limits
from service.redis_client.client import RedisClient
from service.store import scripts
from service.store.listing import Query, iter_matches, page
from tests.support.filling import PROJECT, on_every_redis, opened, pour

#: Lua's `unpack` fails from about 8,000 values on, depending on what is on the stack already.
BLOCKS = 8_100
WIDE = {f"k{number}": number for number in range(70)}
LUA = Path(scripts.__file__).parent / "lua"


@on_every_redis
async def test_a_term_and_its_overflow_may_occur_in_any_number_of_blocks(redis: RedisClient) -> None:
    sessions = await opened(redis, PROJECT, Limits(), 1, block_size=1)
    configs = [{"a": 1, "c": WIDE if number % 3 else {"k1": number % 2}} for number in range(BLOCKS)]
    ids = await pour(sessions, configs)
    for wanted in ({"a": 1, "c": {"k1": 1}}, {"c": {"k1": 1}}, {"a": 1}):
        query = Query(filter=Filter(wanted, wanted))
        expected = [
            name
            for name, stored in zip(ids, configs, strict=True)
            if "c" not in wanted or stored["c"]["k1"] == 1  # type: ignore[index]  # a value of either kind
        ]
        assert [each.id async for batch in iter_matches(sessions, query) for each in batch] == expected
        for descending, ordered in ((False, expected), (True, expected[::-1])):
            first = await page(sessions, Query(filter=query.filter, descending=descending), 50)
            assert [each.id for each in first.sessions] == ordered[:50]


@pytest.mark.parametrize("path", sorted(LUA.rglob("*.lua")), ids=lambda path: path.stem)
def test_no_script_unpacks_a_list_of_unbounded_length(path: Path) -> None:
    bounded = {
        "unpack(stored, 1, 8)",  # the fields of one session
        "unpack(write.fields)",  # the fields of one session
        "unpack(FIELDS)",  # as above
        "unpack(plain)",  # one key for each term, of which `find` takes MAX_TERMS at most
    }
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "unpack(" in line]
    batches = ("unpack(list, from, to)", "unpack(keys, first, last)")
    assert [line for line in lines if not any(call in line for call in (*bounded, *batches))] == []
