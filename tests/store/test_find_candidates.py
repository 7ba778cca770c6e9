"""find_candidates.lua against a simple model, on stores in which every block is filled differently, and some are damaged."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.redis_client.multiplexer import Command
from service.store import script_calls
from service.store.keys import Partition
from service.store.scripts import Script
from service.store.sessions import Sessions
from tests.store.test_listing import few, with_store
from tests.support.filling import on_every_redis, session_id
from tests.support.lua import script_with

#: Terms, and the overflow term that may stand in for some of them.
TERMS = {"a=1": "", "b=1": "", "c.x=1": "c~", "c.y=1": "c~", "d.x=1": "d~"}
#: Shares of a block's serials that have a term.
SHARES = (0.0, 0.02, 0.2, 0.6, 1.0)
USUAL = script_calls.find_candidates.script
#: Ends a call after a few blocks or probes, and plans anew whenever a set is twice as large as before.
HASTY = script_with(USUAL, MAX_COST=400, UNCOUNTED_MIN=1)
#: Ends a call after every block, and searches by two terms only.
HASTIEST = script_with(USUAL, MAX_COST=1, MAX_TERMS=2)


@dataclass
class Index:
    """A partition's sessions and index: random, with a share of its own for each term in each block."""

    block_size: int
    scores: dict[str, float] = field(default_factory=dict)
    #: Sessions without a hash, or with something else instead.
    broken: set[str] = field(default_factory=set)
    terms: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def random(cls, block_size: int, random: Random) -> "Index":
        """The serials start in any block, and at any place in it."""
        index = cls(block_size)
        first = random.randrange(3 * block_size)
        serials = range(max(1, first), first + random.randint(1, 6 * block_size))
        exists = random.choice((1.0, 0.9, 0.3))
        index.scores = {session_id(random.randrange(2**64)): float(each) for each in serials if random.random() < exists}
        alike, disjoint = random.random() < 0.3, random.random() < 0.3
        for number, term in enumerate(sorted({*TERMS, *filter(None, TERMS.values())})):
            share = random.choice(SHARES)
            for serial in serials:
                if disjoint and serial % 2 == number % 2:
                    continue
                if serial % block_size == 0 and not alike:
                    share = random.choice(SHARES)
                # Some are in the index only, as if their sessions were lost.
                if random.random() < share:
                    index.terms[term].add(serial)
        return index

    def damage(self, random: Random) -> None:
        """Change scores, and take the hashes of some sessions."""
        for name in random.sample(sorted(self.scores), len(self.scores) // 5):
            self.scores[name] += random.choice((0.0, 0.5, -1.0, 1.0, 3.0, -1e9, 1e15))
            if random.random() < 0.5:
                self.broken.add(name)

    def commands(self, partition: Partition) -> Iterator[Command]:
        """The commands that create it."""
        if self.scores:
            yield "ZADD", partition.sessions, *(part for name, score in self.scores.items() for part in (repr(score), name))
        for name, score in self.scores.items():
            if name not in self.broken:
                yield "HSET", partition.session(name), "configs", "{}", "serial", f"{score:.0f}"
            elif score % 2:
                yield "SET", partition.session(name), "no hash"
        for term, serials in self.terms.items():
            for block, members in groupby(sorted(serials), lambda serial: serial // self.block_size):
                yield "SADD", f"{partition.prefix}index:{block}:{term}", *members
                yield "SADD", f"{partition.prefix}blocks:{term}", block

    def candidates(self, terms: Sequence[str], *, descending: bool) -> list[tuple[int, str]]:
        """Serial and id of each candidate. Of sessions that share a serial the first id counts."""
        ids = {score: name for name, score in sorted(self.scores.items(), reverse=True)}
        common = set.intersection(*(self.terms[term] | self.terms[TERMS[term]] for term in terms))
        candidates = [(serial, ids[serial]) for serial in sorted(common, reverse=descending) if serial in ids]
        return [(serial, name) for serial, name in candidates if name not in self.broken]


async def scan(
    sessions: Sessions, script: Script, terms: Sequence[str], *, after: int | None, descending: bool, limit: int
) -> list[tuple[int, str]]:
    """Serial and id of each candidate after `after`, from as many calls as it takes."""
    partition = sessions.all_partitions[0]
    candidates: list[tuple[int, str]] = []
    positions = [b"" if after is None else b"%d" % after]
    while True:
        call = script_calls.find_candidates(
            sessions=partition.sessions,
            prefix=partition.prefix,
            block_size=partition.block_size,
            after=positions[-1],
            descending=int(descending),
            limit=limit,
            max_bytes=2**30,
            required_terms=[part for term in terms for part in (term, TERMS[term])],
        )
        reply = await call._replace(script=script).run(sessions.redis, writes=False)
        assert reply.after or not reply.has_more, "a call made no progress"
        assert len(reply.sessions) <= limit
        candidates += [(int(serial), name.decode()) for *_, serial, name in reply.sessions]
        if not reply.has_more:
            return candidates
        positions.append(reply.after)
        if positions[-2]:
            assert (float(positions[-2]) > float(reply.after)) is descending, "a call made no progress"
        assert not candidates or candidates[-1][0] == int(reply.after) or (candidates[-1][0] > int(reply.after)) is descending


@on_every_redis
@pytest.mark.parametrize("block_size", [3, 16, 64, 256])
@pytest.mark.parametrize("is_damaged", [False, True], ids=["whole", "damaged"])
def test_a_scan_finds_the_candidates_of_the_model_in_its_order(redis_url: str, block_size: int, is_damaged: bool) -> None:
    @few
    @given(st.integers(0, 2**32))
    def holds(seed: int) -> None:
        random = Random(seed)
        index = Index.random(block_size, random)
        if is_damaged:
            index.damage(random)

        async def use(sessions: Sessions) -> None:
            commands = list(index.commands(sessions.all_partitions[0]))
            for first in range(0, len(commands), 1000):
                await sessions.redis.batch(commands[first : first + 1000], writes=True)
            for _ in range(4):
                terms, descending = random.sample(list(TERMS), random.randint(1, 3)), random.random() < 0.5
                expected = index.candidates(terms, descending=descending)
                for script in (USUAL, HASTY):
                    limit = random.choice((1, 2, 21, 256))
                    assert await scan(sessions, script, terms, after=None, descending=descending, limit=limit) == expected
                # From every position near a candidate or a block's end, and some others.
                by_all = random.sample(list(TERMS), len(TERMS))
                found = await scan(sessions, HASTIEST, by_all, after=None, descending=descending, limit=2)
                assert found == sorted(set(found), reverse=descending)
                assert set(found) >= set(index.candidates(by_all, descending=descending))
                places = {serial + near for serial, _ in expected for near in (-1, 0, 1)}
                places |= {block * block_size + near for block in range(10) for near in (-1, 0, 1)}
                for after in random.sample(sorted(places), min(len(places), 12)):
                    rest = [each for each in expected if (each[0] < after if descending else each[0] > after)]
                    assert await scan(sessions, HASTY, terms, after=after, descending=descending, limit=21) == rest

        with_store(redis_url, 1, block_size, use)

    holds()
