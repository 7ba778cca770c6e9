"""A model of a store: sessions in a dict, and every key of Redis computed from them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from service.configs.limits import Limits
from service.configs.terms import member_terms, pack_terms, user_term
from service.store.keys import Partition, partition_number, project_key, users_key
from service.store.record import Session, Written
from service.store.sessions import Sessions

#: Numbers as they are written; only where a value ends is asked of it.
_VALUES = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
_SPACE = " \t\r\n"


def spans(text: str) -> dict[str, str]:
    """The members of a JSON object, each value as it is written, without line breaks and tabs between its tokens.

    Written without the service's parser: of equal keys the last value counts, at the place of the first.
    """
    members: dict[str, str] = {}
    at = _skip(text, text.index("{") + 1)
    while text[at] != "}":
        key, at = _VALUES.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        _, end = _VALUES.raw_decode(text, at)
        members[key] = text[at:end].translate({10: None, 13: None, 9: None})
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return members


def _skip(text: str, at: int) -> int:
    while text[at] in _SPACE:
        at += 1
    return at


def lines(values: Mapping[str, str]) -> bytes:
    """One member a line: the stored form."""
    body = ",\n".join(f"{orjson.dumps(key).decode()}:{value}" for key, value in values.items())
    return ("{\n" + body + "\n}" if body else "{}").encode()


def terms_of(values: Mapping[str, str]) -> dict[str, list[str]]:
    """The terms of each member."""
    return {key: member_terms(key, orjson.loads(value)) for key, value in values.items()}


@dataclass
class Entry:
    """One session of the model; `values` are None for null configs."""

    values: dict[str, str] | None
    revision: int
    user: str | None
    tracking: bool
    serial: int
    created_at: int
    updated_at: int
    expires_at: int | None
    #: Whether its lifetime is over, and nothing has removed it yet.
    is_expired: bool = False

    @property
    def configs(self) -> bytes:
        return b"null" if self.values is None else lines(self.values)

    @property
    def terms(self) -> list[str]:
        """Every term that the session is indexed under."""
        terms = [term for terms in terms_of(self.values or {}).values() for term in terms]
        return terms if self.user is None else [*terms, user_term(self.user)]

    def hash(self) -> dict[bytes, bytes]:
        """Its hash in Redis."""
        fields: dict[str, object] = {
            "revision": self.revision,
            "serial": self.serial,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
        }
        if self.tracking:
            fields["disable_task_tracking"] = 1
        if self.expires_at is not None:
            fields["expires_at"] = self.expires_at
        content = {name.encode(): str(value).encode() for name, value in fields.items()}
        joined = {key: pack_terms(key, terms) for key, terms in terms_of(self.values or {}).items()}
        content |= {b"configs": self.configs, b"terms": lines(joined)}
        return content if self.user is None else content | {b"user": orjson.dumps(self.user)}


def merged(values: Mapping[str, str] | None, changes: Mapping[str, str]) -> dict[str, str]:
    """What a PATCH makes of `values`."""
    result = dict(values or {})
    for key, value in changes.items():
        if value == "null":
            result.pop(key, None)
        else:
            result[key] = value
    return result


def fits(values: Mapping[str, str], limits: Limits) -> bool:
    """Whether configs are within the limits of a write."""
    return (
        len(lines(values)) <= limits.max_configs_bytes
        and len(values) <= limits.max_keys
        and sum(max(1, len(terms)) for terms in terms_of(values).values()) <= limits.max_terms
    )


@dataclass
class Model:
    """The sessions and users of one project, as they should be."""

    sessions: Sessions
    entries: dict[str, Entry] = field(default_factory=dict)
    users: dict[str, int] = field(default_factory=dict)
    #: Last serial and created_at of each partition that ever had a session.
    state: dict[int, tuple[int, int]] = field(default_factory=dict)
    etags: set[tuple[str, str]] = field(default_factory=set)
    #: The default lifetime in seconds, 0 for none, and how often the project's configs were changed.
    ttl: int = 0
    revision: int = 0

    def living(self, session_id: str) -> Entry | None:
        """The session that a request should see; None if it has expired."""
        entry = self.entries.get(session_id)
        return None if entry is None or entry.is_expired else entry

    @property
    def listed(self) -> list[str]:
        """The ids that a list of all sessions should have, in its order."""
        places = [
            (partition_number(name, self.sessions.partitions), entry.serial, name)
            for name, entry in self.entries.items()
            if not entry.is_expired
        ]
        return [name for _, _, name in sorted(places)]

    def sweep(self) -> None:
        """Remove the expired sessions."""
        self.entries = {name: entry for name, entry in self.entries.items() if not entry.is_expired}

    def create(self, session: Session, values: dict[str, str] | None, user: str | None, tracking: bool) -> None:
        """Add a new session, after checking its serial and times."""
        number = partition_number(session.id, self.sessions.partitions)
        serial, newest = self.state.get(number, (0, 0))
        assert session.serial == serial + 1
        assert session.created_at > newest
        assert session.updated_at == session.created_at
        assert session.revision == 1
        self.state[number] = session.serial, session.created_at
        self.entries[session.id] = Entry(
            values, 1, user, tracking, session.serial, session.created_at, session.updated_at, session.expires_at
        )
        assert session.configs == self.entries[session.id].configs
        self._new_etag(session.id, session.etag)

    def write(self, session_id: str, written: Written, values: dict[str, str]) -> None:
        """Update a session, after checking revision, times and ETag."""
        entry = self.entries[session_id]
        assert written.revision == entry.revision + 1
        assert written.created_at == entry.created_at
        assert written.updated_at >= entry.updated_at
        entry.values, entry.revision, entry.updated_at = values, written.revision, written.updated_at
        self._new_etag(session_id, written.etag)

    def _new_etag(self, session_id: str, etag: str) -> None:
        assert (session_id, etag) not in self.etags
        self.etags.add((session_id, etag))

    def keyspace(self) -> dict[str, Any]:
        """Every key that should exist, with its content."""
        slug = self.sessions.project.slug
        expected: dict[str, Any] = {users_key(slug): dict(self._users_encoded())} if self.users else {}
        expected[project_key(slug)] = {b"id": self.sessions.project.id.encode()}
        if self.revision:
            configs = lines({"session_ttl": str(self.ttl)} if self.ttl else {})
            expected[project_key(slug)] |= {b"configs": configs, b"configs_revision": b"%d" % self.revision}
        for partition in self.sessions.all_partitions:
            expected[partition.state] = self._state(partition)
            mine = {name: entry for name, entry in self.entries.items() if self.sessions.partition(name) == partition}
            if mine:
                expected[partition.sessions] = {name.encode(): entry.serial for name, entry in mine.items()}
            expiring = {name.encode(): entry.expires_at for name, entry in mine.items() if entry.expires_at is not None}
            if expiring:
                expected[partition.expiring] = expiring
            expected |= {partition.session(name): entry.hash() for name, entry in mine.items()}
            expected |= index_of(partition, ((entry.serial, entry.terms) for entry in mine.values()))
        return expected

    def _state(self, partition: Partition) -> dict[bytes, bytes]:
        """The state of a partition."""
        fields: dict[str, int] = {"partitions": partition.owner.partitions}
        if partition.number in self.state:
            fields["serial"], fields["created_at"] = self.state[partition.number]
        if self.ttl:
            fields["session_ttl"] = self.ttl
        if self.revision:
            fields["session_ttl_revision"] = self.revision
        numbers = {name.encode(): b"%d" % value for name, value in fields.items()}
        return {b"project_id": partition.owner.project_id.encode()} | numbers

    def _users_encoded(self) -> Iterable[tuple[bytes, int]]:
        return ((name.encode(), created_at) for name, created_at in self.users.items())


def index_of(partition: Partition, sessions: Iterable[tuple[int, Iterable[str]]]) -> dict[str, set[bytes]]:
    """The index sets of a partition, from the serial and the terms of each of its sessions."""
    sets: dict[str, set[bytes]] = defaultdict(set)
    for serial, terms in sessions:
        block = serial // partition.block_size
        for term in terms:
            sets[partition.index(block, term)].add(b"%d" % serial)
            sets[partition.blocks(term)].add(b"%d" % block)
    return dict(sets)


def index_from_documents(keyspace: Mapping[str, Any], partition: Partition) -> dict[str, set[bytes]]:
    """The index sets that the documents in a keyspace call for."""
    documents = []
    for name, fields in keyspace.items():
        if name.startswith(partition.session("")):
            values = {} if fields[b"configs"] == b"null" else spans(fields[b"configs"].decode())
            terms = [term for terms in terms_of(values).values() for term in terms]
            if b"user" in fields:
                terms.append(user_term(orjson.loads(fields[b"user"])))
            documents.append((int(fields[b"serial"]), terms))
    return index_of(partition, documents)


def index_in(keyspace: Mapping[str, Any], partition: Partition) -> dict[str, set[bytes]]:
    """The index sets that are in a keyspace."""
    kinds = (f"{partition.prefix}index:", partition.blocks(""))
    return {name: content for name, content in keyspace.items() if name.startswith(kinds)}
