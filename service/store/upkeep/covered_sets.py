"""The index sets that a check has compared, at 8 bytes a set."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable

_HASH_MASK = 2**64 - 1


def _hash(term: str) -> int:
    return hash(term) & _HASH_MASK


class CoveredSets:
    """Sets of the index, by block and term. Two terms of a block with the same hash count as one.

    Invariant: `_hashes` has, by block, the sorted hashes of the terms whose sets were compared.
    """

    def __init__(self) -> None:
        self._hashes: dict[int, array[int]] = {}

    def add(self, block: int, terms: Iterable[str]) -> None:
        """Record that the sets of `terms` in `block` were compared."""
        self._hashes[block] = array("Q", sorted([*self._hashes.get(block, ()), *map(_hash, terms)]))

    def __contains__(self, name: str) -> bool:
        """Whether the set `name` (`<block>:<term>`) was compared."""
        number, _, term = name.partition(":")
        if not (number.isascii() and number.isdigit() and str(int(number)) == number):
            return False
        hashes, target = self._hashes.get(int(number), array("Q")), _hash(term)
        index = bisect_left(hashes, target)
        return index < len(hashes) and hashes[index] == target
