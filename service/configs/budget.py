"""What one list may cost, counted in work and not in time, so that a list has the same pages on every machine."""

#: More than any list costs.
UNLIMITED = 2**62


class OutOfBudget(Exception):
    """The next step costs more than is left of the budget."""


class Budget:
    """Work that one page of a list may still do: candidates to examine, bytes of their configs, comparisons in arrays.

    The first candidate is always granted, whatever its size, so that every page makes progress. Without arguments there is no
    limit.
    """

    __slots__ = ("_bytes", "_candidates", "_comparisons", "_has_charged")

    def __init__(self, *, candidates: int = UNLIMITED, max_bytes: int = UNLIMITED, comparisons: int = UNLIMITED) -> None:
        self._candidates = candidates
        self._bytes = max_bytes
        self._comparisons = comparisons
        self._has_charged = False

    @property
    def candidates(self) -> int:
        """How many more candidates may be examined."""
        return max(0, self._candidates)

    def take_lookup(self, candidates: int) -> None:
        """Charge a search of the index, which counts as `candidates` candidates; the last search may exceed the budget."""
        self._candidates -= candidates

    def take_candidate(self, size: int) -> None:
        """Charge one candidate with `size` bytes of configs.

        Raises:
            OutOfBudget: it is not the first candidate, and candidates or bytes are used up.
        """
        if self._has_charged and (self._candidates < 1 or self._bytes < size):
            raise OutOfBudget
        self._has_charged = True
        self._candidates -= 1
        self._bytes -= size

    def take_comparisons(self, count: int) -> None:
        """Charge `count` comparisons, before they are made.

        Raises:
            OutOfBudget: fewer are left; none is charged.
        """
        if count > self._comparisons:
            raise OutOfBudget
        self._comparisons -= count
