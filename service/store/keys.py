"""The map of the keyspace: every key this service uses is named here and nowhere else.

    scc:store                              hash   layout, oldest_reader, oldest_writer (versions), partitions, block_size,
                                                  key_secret_check, root_key_check (beginnings of hashes); generation
                                                  (after a restore); while the store is being moved to another number of
                                                  partitions: moving_to, _phase, _sessions
    scc:projects                           hash   slug → project id
    scc:sweep                              string exists while a worker removes expired sessions
    scc:ready                              -      never exists: deleting it shows whether Redis accepts writes
    scc:preflight:{<n>}:<kind>             -      created and deleted at the start, to try every command
    scc:token:<hmac>                       hash   the project of an API key: project, project_id, name
    scc:rate:<hmac>                        string time at which an API key's full burst is available (µs); expires then
    scc:{acme}:project                     hash   id, created_at, configs (the project's own, in the stored form),
                                                  configs_revision (how often they were changed)
    scc:{acme}:tokens                      set    hmacs of the project's keys
    scc:{acme}:users                       zset   user identifier → created_at
    scc:{acme}:expected_users              hash   user identifier → creates in progress of a first session; while
                                                  there are any, the user may be withdrawn
    scc:{acme.0}:state                     hash   project_id, partitions (of how many this is one; 0 during a move), last
                                                  serial, last created_at, session_ttl (the project's default TTL,
                                                  seconds), session_ttl_revision (of the configs that say so)
    scc:{acme.0}:sessions                  zset   session id → serial
    scc:{acme.0}:expiring                  zset   session id → expires_at, of the sessions that have one
    scc:{acme.0}:session:<id>              hash   configs, terms, revision, serial, user, created_at, updated_at,
                                                  disable_task_tracking (if true), expires_at (if it expires);
                                                  all times are microseconds since 1970
    scc:{acme.0}:index:<block>:<term>      set    serials of that block whose session has the term
    scc:{acme.0}:blocks:<term>             set    blocks in which the term occurs
    scc:{acme.0}:order                     zset   session id → created_at, of those without a serial during a move

`acme` is a project's slug, `0` a partition: crc32(session id) mod partitions. Sessions of a partition are numbered in the order
of their creation; the number is the serial; `block_size` consecutive serials are a block. Braces are Redis Cluster's hash tag:
all keys of one partition share a slot, as a script needs.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple
from zlib import crc32

#: Consecutive serials in one block: a set of as many integers is an intset where Redis is set up for it.
BLOCK_SIZE = 4096

#: Kinds of a partition's keys that follow from its sessions: a move deletes and rebuilds them.
DERIVED = frozenset({"sessions", "expiring", "index", "blocks"})

#: Kinds of a partition's keys, of a project's, and of the store's, each with its type. Any other name is not ours.
PARTITION_KINDS = {
    "state": "hash", "sessions": "zset", "expiring": "zset", "order": "zset", "session": "hash",
    "index": "set", "blocks": "set",
}  # fmt: skip
PROJECT_KINDS = {"project": "hash", "tokens": "set", "users": "zset", "expected_users": "hash"}
STORE_KINDS = {"store": "hash", "projects": "hash", "sweep": "string", "token": "hash", "rate": "string"}
#: Prefix of the keys on which the start tries commands.
PREFLIGHT = "scc:preflight:"

STORE = "scc:store"
PROJECTS = "scc:projects"
SWEEP = "scc:sweep"
READY = "scc:ready"


def preflight_prefix(number: int) -> str:
    """Prefix of the keys on which the start tries commands; those of one `number` share a slot."""
    return f"{PREFLIGHT}{{{number}}}:"


def token_key(digest: str) -> str:
    """Key of the record of an API key, by the hex digest of its keyed hash."""
    return f"scc:token:{digest}"


def rate_key(digest: str) -> str:
    """Key of the rate of an API key, by the hex digest of its keyed hash."""
    return f"scc:rate:{digest}"


def project_key(slug: str) -> str:
    """Key of a project's record."""
    return f"scc:{{{slug}}}:project"


def tokens_key(slug: str) -> str:
    """Key of the set of digests of a project's API keys."""
    return f"scc:{{{slug}}}:tokens"


def users_key(slug: str) -> str:
    """Key of a project's users."""
    return f"scc:{{{slug}}}:users"


def expected_users_key(slug: str) -> str:
    """Key of the creates in progress of each user of a project who has no session yet."""
    return f"scc:{{{slug}}}:expected_users"


class Owner(NamedTuple):
    """The owner that the state of a partition names: its project's id, and how many partitions the store has."""

    project_id: str
    partitions: int


#: The owner of a partition that is only read: no state names it, so every write is refused.
NOBODY = Owner("nobody", -1)


class PartitionArguments(NamedTuple):
    """What every script that writes to a partition takes first: the prefix of its keys, its block size, and its owner."""

    prefix: str
    block_size: int
    project_id: str
    partitions: int


@dataclass(frozen=True)
class Partition:
    """The keys of one partition of a project, and the owner that its state must name before a write."""

    slug: str
    number: int
    block_size: int = BLOCK_SIZE
    owner: Owner = field(default=NOBODY, compare=False)

    @cached_property
    def arguments(self) -> PartitionArguments:
        """The first arguments of every script that writes to the partition."""
        return PartitionArguments(self.prefix, self.block_size, *self.owner)

    @cached_property
    def prefix(self) -> str:
        """Prefix of all keys of the partition."""
        return f"scc:{{{self.slug}.{self.number}}}:"

    @cached_property
    def state(self) -> str:
        """Key of the last serial and created_at, and of the default TTL."""
        return self.prefix + "state"

    @cached_property
    def sessions(self) -> str:
        """Key of the zset id → serial."""
        return self.prefix + "sessions"

    @property
    def expiring(self) -> str:
        """Key of the zset id → expires_at."""
        return self.prefix + "expiring"

    @property
    def order(self) -> str:
        """Key of the zset id → created_at of the sessions without a serial during a move."""
        return self.prefix + "order"

    def session(self, session_id: str) -> str:
        """Key of a session's hash."""
        return f"{self.prefix}session:{session_id}"

    def index(self, block: int | str, term: str) -> str:
        """Key of the set of serials of `block` that have `term`."""
        return f"{self.prefix}index:{block}:{term}"

    def blocks(self, term: str) -> str:
        """Key of the set of blocks in which `term` occurs."""
        return f"{self.prefix}blocks:{term}"

    def block_of(self, serial: int) -> int:
        """Number of the block of `serial`."""
        return serial // self.block_size


def all_partitions(slug: str, owner: Owner, count: int, block_size: int = BLOCK_SIZE) -> tuple[Partition, ...]:
    """The first `count` partitions of a project, which is all of them unless the store is being repartitioned."""
    return tuple(Partition(slug, number, block_size, owner) for number in range(count))


def split(key: str) -> tuple[str, str, str]:
    """The parts of a partition's key: the partition's prefix, the kind, and the rest of the name."""
    prefix, brace, rest = key.partition("}:")
    kind, _, rest = rest.partition(":")
    return prefix + brace, kind, rest


def is_text(name: bytes) -> bool:
    """Whether a name from Redis is UTF-8, as all names of this service are."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def partition_number(session_id: str, partitions: int) -> int:
    """Partition of a session, from its canonical id."""
    return crc32(session_id.encode()) % partitions
