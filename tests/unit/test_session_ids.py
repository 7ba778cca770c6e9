"""The ids that new sessions get."""

from collections import Counter
from uuid import RFC_4122, UUID

from service.http.api.sessions import _new_id


def test_new_ids_are_canonical_random_uuids_of_version_4() -> None:
    ids = [_new_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    for text in ids:
        parsed = UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, RFC_4122)
    # Every digit that the format leaves open takes every value that it can.
    for position, values in ((position, 4 if position == 19 else 16) for position in range(36)):
        if position not in (8, 13, 14, 18, 23):
            assert len(Counter(text[position] for text in ids)) == values
