"""A real Postgres, asked what its `jsonb @> jsonb` says."""

from collections.abc import Sequence
from typing import LiteralString

import psycopg

_CONTAINS: LiteralString = """
    SELECT config::jsonb @> filter::jsonb
    FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS pair (config, filter, number)
    ORDER BY number
"""


class Postgres:
    """A connection to a Postgres of our own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def contains(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[bool]:
        """For each pair of JSON texts, whether the first contains the second; one query for all."""
        configs, filters = ([text.decode() for text in texts] for texts in zip(*pairs, strict=True))
        return [row[0] for row in self._connection.execute(_CONTAINS, (configs, filters))]
