"""The sessions of the stores, like those of a fleet of agents, and the twelve filters. Seeded, without I/O.

Agents are heavy-tailed: the commonest of 1,000 names has a third of all sessions. Everything else is uniform, but for what the
filters need: exactly four sessions have the tags t1, t2 and t3, and the agent `NEVER_IN_DEV` has no session in environment dev.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from random import Random
from typing import Any
from uuid import UUID

#: Sessions a chunk. Each chunk has its own seed, so that several processes can share the work.
CHUNK = 1000

AGENTS, ENVS, MODELS, TEMPERATURES, REGIONS, TOKENS, RUNNERS, VERSIONS, TAGS = 1000, 3, 10, 11, 8, 4, 2000, 30, 100
COMMONEST, RARE, NEVER_IN_DEV = "bot1", "bot700", "bot6"
THREE_TAGS = ["t1", "t2", "t3"]
#: Name of the filter whose terms are all common, but hardly ever in one session.
HARDLY_EVER_MEET = "three tags"

_ENVS, _ENV_SHARES = ("prod", "dev", "staging"), (0.60, 0.85, 1.0)
_VERSIONS = tuple(f"{major}.{minor}" for major in range(1, 7) for minor in range(5))
_TOKENS = (256, 1024, 4096, 16384)
#: A share of k^-1.4 gives the first of 1,000 names 34 %, the seven-hundredth 35 of a million.
_AGENT_SHARES = tuple(accumulate(rank**-1.4 for rank in range(1, AGENTS + 1)))
_TAG_NUMBERS = range(TAGS)

Configs = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter, and a name that says what is special about it."""

    name: str
    configs: Configs


FILTERS = (
    Filter("rare agent", {"agent": RARE}),
    Filter("commonest agent", {"agent": COMMONEST}),
    Filter("agent + env", {"agent": COMMONEST, "env": "prod"}),
    Filter("agent + env + model", {"agent": "bot5", "env": "dev", "model": "model-3"}),
    Filter("nested name", {"runtime": {"name": "runner77"}}),
    Filter("nested name + version", {"runtime": {"name": "runner77", "version": "2.1"}}),
    Filter("nested version", {"runtime": {"version": "2.1"}}),
    Filter("two tags", {"tags": THREE_TAGS[:2]}),
    Filter(HARDLY_EVER_MEET, {"tags": THREE_TAGS}),
    Filter("value nobody has", {"agent": "nosuch"}),
    Filter("agent + env that never meet", {"agent": NEVER_IN_DEV, "env": "dev"}),
    Filter("temperature + stream + region", {"temperature": 0.7, "stream": True, "region": "region-2"}),
)


@dataclass(frozen=True, slots=True)
class DataSet:
    """`total` sessions, always the same for the same `total` and `seed`."""

    total: int
    seed: int = 3

    def sessions(self, first: int = 0, last: int | None = None) -> Iterator[tuple[str, Configs]]:
        """Ids and configs of the sessions `first` to `last` - 1; both are multiples of `CHUNK`, or `last` is `total`."""
        last = self.total if last is None else last
        for start in range(first, last, CHUNK):
            yield from self._chunk(start, min(CHUNK, last - start))

    def ids(self, count: int) -> list[str]:
        """The ids of the first `count` sessions."""
        return [session_id for session_id, _ in islice(self.sessions(), count)]

    def _chunk(self, start: int, count: int) -> Iterator[tuple[str, Configs]]:
        random = Random(self.seed * 1_000_003 + start)  # noqa: S311 - data, not secrets
        agents = random.choices(range(1, AGENTS + 1), cum_weights=_AGENT_SHARES, k=count)
        envs = random.choices(_ENVS, cum_weights=_ENV_SHARES, k=count)
        with_three_tags = {self.total * eighth // 8 for eighth in (1, 3, 5, 7)}
        with_rare_agent = self.total // 2
        below = random.randrange
        for offset in range(count):
            index = start + offset
            agent = RARE if index == with_rare_agent else f"bot{agents[offset]}"
            env = envs[offset]
            tags = [f"t{tag}" for tag in random.sample(_TAG_NUMBERS, 3)]
            if index in with_three_tags:
                tags = list(THREE_TAGS)
            elif set(tags) == set(THREE_TAGS):
                tags[0] = "t4"
            yield (
                str(UUID(int=random.getrandbits(128), version=4)),
                {
                    "agent": agent,
                    "env": "prod" if agent == NEVER_IN_DEV and env == "dev" else env,
                    "model": f"model-{below(MODELS)}",
                    "temperature": below(TEMPERATURES) / 10,
                    "region": f"region-{below(REGIONS)}",
                    "max_tokens": _TOKENS[below(TOKENS)],
                    "stream": below(2) == 1,
                    "runtime": {"name": f"runner{below(RUNNERS)}", "version": _VERSIONS[below(VERSIONS)]},
                    "tags": tags,
                },
            )
