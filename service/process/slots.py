"""Shared memory in which worker processes count: every worker has a slot, and other processes read all of them.

The memory exists before the first fork, so all processes share it. A slot has one writer at a time, which needs neither a lock
nor a system call: an aligned word of 64 bits is read and written as a whole. When its process has ended, a new process takes
the slot and adds to the values in it. So nothing that an ended process counted is lost, and no sum over the slots falls.
"""

import mmap
from collections import deque
from collections.abc import Iterator

#: A slot's first words. IN_FLIGHT and CONNECTIONS describe its process as it is now; all others count. The supervisor counts
#: RESTARTS.
IN_FLIGHT, CONNECTIONS, RESTARTS = range(3)
#: The first word that the workers' own counters may use.
FIRST_COUNTER = 3

Words = memoryview


class Slots:
    """`count` slots of `words` words, for the supervisor, which assigns them, and one more, in which it counts itself."""

    def __init__(self, count: int, words: int) -> None:
        memory = memoryview(mmap.mmap(-1, 8 * (count + 1) * words)).cast("Q")
        self._slots = [memory[start : start + words] for start in range(0, len(memory), words)]
        self._own, *others = self._slots
        self._free = deque(others)

    def take(self) -> Words:
        """A free slot, for a process that is about to be forked."""
        return self._free.popleft()

    def give_back(self, slot: Words) -> None:
        """The process of the slot has ended."""
        slot[IN_FLIGHT] = slot[CONNECTIONS] = 0
        self._free.append(slot)

    def count_restart(self) -> None:
        """A worker has exited or was killed because it hung, and another one has started."""
        self._own[RESTARTS] += 1

    def __iter__(self) -> Iterator[Words]:
        return iter(self._slots)
