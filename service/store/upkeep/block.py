"""The expected index sets of one block of serials, and the differences to verify."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from service.store.verify import Finding


@dataclass(slots=True)
class Block:
    """The expected sets of one block."""

    number: int
    expected: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    ids: dict[bytes, str] = field(default_factory=dict)
    #: Sessions to verify, with the terms whose sets may have them wrongly.
    suspects: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    #: Members of its sets that are no session's serial.
    orphans: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    #: Users, each with a session of theirs: its id and serial.
    users: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    #: Differences that are confirmed already.
    findings: list[Finding] = field(default_factory=list)
    #: Ids that are not UTF-8.
    broken_ids: list[bytes] = field(default_factory=list)

    def compare(self, term: str, members: Iterable[bytes] | None, is_listed: int | None) -> None:
        """Compare the set of `term` with the expected one; `is_listed`: the block is in `blocks:<term>`."""
        actual, expected = set(members or ()), self.expected[term]
        for serial in actual ^ expected if is_listed else actual | expected:
            if serial in self.ids:
                self.suspects[self.ids[serial]].add(term)
            else:
                self.orphans[term].append(serial)
