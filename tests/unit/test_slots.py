"""Slots of shared memory: no sum falls and no count is lost, whichever processes start and end."""

import os

from hypothesis import given
from hypothesis import strategies as st

from service.process.slots import CONNECTIONS, FIRST_COUNTER, IN_FLIGHT, RESTARTS, Slots

COUNTER = FIRST_COUNTER


def total(slots: Slots, word: int) -> int:
    return sum(slot[word] for slot in slots)


@given(st.lists(st.tuples(st.sampled_from(["start", "end", "count"]), st.integers(0, 3))))
def test_what_an_ended_process_counted_stays_in_the_sum(steps: list[tuple[str, int]]) -> None:
    slots = Slots(4, FIRST_COUNTER + 1)
    running: list[memoryview] = []
    counted = 0
    for step, number in steps:
        if step == "start" and len(running) < 4:
            running.append(slots.take())
        elif running and step == "end":
            slots.give_back(running.pop(number % len(running)))
        elif running and step == "count":
            running[number % len(running)][COUNTER] += number
            running[number % len(running)][IN_FLIGHT] = number
            counted += number
        assert total(slots, COUNTER) == counted
        # Of processes that have ended, nothing is in flight.
        assert total(slots, IN_FLIGHT) == sum(slot[IN_FLIGHT] for slot in running)


def test_a_forked_process_counts_in_the_memory_of_its_parent() -> None:
    slots = Slots(2, FIRST_COUNTER + 1)
    slot = slots.take()
    pid = os.fork()
    if pid == 0:
        slot[COUNTER] += 5
        slot[CONNECTIONS] = 1
        os._exit(0)
    os.waitpid(pid, 0)
    assert (total(slots, COUNTER), total(slots, CONNECTIONS)) == (5, 1)
    slots.give_back(slot)
    assert (total(slots, COUNTER), total(slots, CONNECTIONS)) == (5, 0)


def test_restarts_are_counted_apart_from_the_slots_of_workers() -> None:
    slots = Slots(1, FIRST_COUNTER)
    slot = slots.take()
    slots.count_restart()
    slots.count_restart()
    assert (slot[RESTARTS], total(slots, RESTARTS)) == (0, 2)
