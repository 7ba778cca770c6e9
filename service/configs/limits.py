"""Limits on what a client may send. Each is a setting; see `service.settings`."""

from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from msgspec import Meta

Positive: TypeAlias = Annotated[int, Meta(ge=1)]
NotNegative: TypeAlias = Annotated[int, Meta(ge=0)]
#: aiohttp limits a header line to 8,190 bytes, and the limit in its error is how a request line is distinguished.
Head: TypeAlias = Annotated[int, Meta(ge=8192)]
#: Nested values are traversed recursively, two frames a level.
Nesting: TypeAlias = Annotated[int, Meta(ge=1, le=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on everything a client controls. Sizes are bytes."""

    max_configs_bytes: Positive = field(
        default=256 * 1024, metadata={"help": "largest configs of one session after a write, in bytes"}
    )
    max_body_bytes: Positive = field(default=1024 * 1024, metadata={"help": "largest request body, in bytes"})
    max_line_bytes: Head = field(
        default=64 * 1024, metadata={"help": "longest request target, the filter in it included, in bytes"}
    )
    max_head_bytes: Head = field(default=32 * 1024, metadata={"help": "largest headers of one request together, in bytes"})
    max_nesting: Nesting = field(default=64, metadata={"help": "deepest nesting of configs and filters, in levels"})
    max_keys: Positive = field(default=1024, metadata={"help": "most top-level keys of one session's configs"})
    max_terms: Positive = field(default=512, metadata={"help": "most index terms of one session"})
    max_sessions: NotNegative = field(default=0, metadata={"help": "most sessions of a project; beyond it 503; 0: no limit"})
    max_users: NotNegative = field(default=0, metadata={"help": "most users of a project; beyond it 503; 0: no limit"})
    max_user_bytes: Positive = field(default=256, metadata={"help": "longest user identifier, in bytes"})
    max_filter_values: Positive = field(
        default=128, metadata={"help": "most values, containers included, in one filter_by_configs"}
    )
    max_page_bytes: Positive = field(
        default=4 * 1024 * 1024, metadata={"help": "most bytes of configs in one page of a list; one session always fits"}
    )
    max_list_candidates: Positive = field(
        default=10_000, metadata={"help": "most sessions that one page of a list examines; then it ends early"}
    )
    max_list_bytes: Positive = field(
        default=8 * 1024 * 1024, metadata={"help": "most bytes of configs that one page of a list examines; then it ends early"}
    )
    max_list_comparisons: Positive = field(
        default=200_000, metadata={"help": "most comparisons in arrays for one page of a list; then it ends early"}
    )
