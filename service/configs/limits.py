"""Limits on what a client may send. Each is a setting; see `service.settings`."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on everything a client controls. Sizes are bytes."""

    max_configs_bytes: int = field(
        default=256 * 1024, metadata={"help": "largest configs of one session after a write, in bytes"}
    )
    max_body_bytes: int = field(default=1024 * 1024, metadata={"help": "largest request body, in bytes"})
    max_line_bytes: int = field(
        default=64 * 1024, metadata={"help": "longest request target, the filter in it included, in bytes"}
    )
    max_head_bytes: int = field(default=32 * 1024, metadata={"help": "largest headers of one request together, in bytes"})
    max_nesting: int = field(default=64, metadata={"help": "deepest nesting of configs and filters, in levels"})
    max_keys: int = field(default=1024, metadata={"help": "most top-level keys of one session's configs"})
    max_terms: int = field(default=512, metadata={"help": "most index terms of one session"})
    max_sessions: int = field(default=0, metadata={"help": "most sessions of a project; beyond it 503; 0: no limit"})
    max_users: int = field(default=0, metadata={"help": "most users of a project; beyond it 503; 0: no limit"})
    max_user_bytes: int = field(default=256, metadata={"help": "longest user identifier, in bytes"})
    max_filter_values: int = field(default=128, metadata={"help": "most values, containers included, in one filter_by_configs"})
    max_page_bytes: int = field(
        default=4 * 1024 * 1024, metadata={"help": "most bytes of configs in one page of a list; one session always fits"}
    )
    max_list_candidates: int = field(
        default=10_000, metadata={"help": "most sessions that one page of a list examines; then it ends early"}
    )
    max_list_bytes: int = field(
        default=8 * 1024 * 1024, metadata={"help": "most bytes of configs that one page of a list examines; then it ends early"}
    )
    max_list_comparisons: int = field(
        default=200_000, metadata={"help": "most comparisons in arrays for one page of a list; then it ends early"}
    )
