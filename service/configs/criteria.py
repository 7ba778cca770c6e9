"""Members of a project's own configs that Acontext's SDKs read as text."""

from collections.abc import Mapping

from service.errors import BadRequest

CRITERIA = ("task_success_criteria", "task_failure_criteria")
#: Longest criteria, in bytes of UTF-8.
MAX_CRITERIA_BYTES = 2000


def check_criteria(values: Mapping[str, object]) -> None:
    """Refuse changes to a project's configs that Acontext's SDKs could not parse; null deletes the member.

    Raises:
        BadRequest: one of `CRITERIA` is neither null nor a string of at most `MAX_CRITERIA_BYTES`.
    """
    for name in CRITERIA:
        value = values.get(name)
        if value is not None and not (isinstance(value, str) and len(value.encode()) <= MAX_CRITERIA_BYTES):
            raise BadRequest(f"{name} must be null or a string of at most {MAX_CRITERIA_BYTES} bytes")
