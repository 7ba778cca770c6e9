"""Requests and responses as JSON Schema (2020-12); `routes` combines these parts to describe each route.

Objects in responses are closed: they have no other members. Objects in requests are open: other members are ignored.
"""

from service.configs.criteria import CRITERIA, MAX_CRITERIA_BYTES
from service.configs.limits import Limits
from service.configs.ttl import TTL_MAX
from service.errors import reasons

#: A JSON Schema, or an OpenAPI object with schemas in it.
Schema = dict[str, object]

_CANONICAL_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_HYPHENED, _PLAIN = "[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", "[0-9A-Fa-f]{32}"
#: The accepted spellings of a UUID.
_ANY_UUID = rf"(urn:uuid:)?{_HYPHENED}|{_PLAIN}|\{{{_HYPHENED}\}}"

_UUID: Schema = {"type": "string", "format": "uuid", "pattern": f"^{_CANONICAL_UUID}$"}
_TIME: Schema = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$",
    "description": "UTC, with microseconds",
}


def ref(name: str) -> Schema:
    """A reference to the schema `name` of `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(required: dict[str, object], optional: dict[str, object] | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _page(item: str) -> Schema:
    items = {"type": "array", "items": ref(item)}
    return _closed({"items": items, "has_more": {"type": "boolean"}}, {"next_cursor": {"type": "string", "minLength": 1}})


def _page_limits(limits: Limits) -> str:
    return (
        "Follow next_cursor while has_more is true: a page may have fewer items than limit, even none. A page has at most "
        f"{limits.max_page_bytes} bytes of configs, or one session. It ends early after examining "
        f"{limits.max_list_candidates} sessions, {limits.max_list_bytes} bytes of configs or "
        f"{limits.max_list_comparisons} comparisons in arrays."
    )


def components(limits: Limits) -> dict[str, Schema]:
    """Every schema that `ref` can reference."""
    user: Schema = {
        "type": "string",
        "maxLength": limits.max_user_bytes,
        "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$",
        "description": f"the identifier of a user, at most {limits.max_user_bytes} bytes of UTF-8; empty means no user",
    }
    configs: Schema = {
        "type": "object",
        "maxProperties": limits.max_keys,
        "description": f"any JSON object of at most {limits.max_configs_bytes} bytes and {limits.max_nesting} levels",
    }
    ttl: Schema = {
        "type": ["integer", "null"],
        "minimum": 1,
        "maximum": TTL_MAX,
        "description": "seconds from now until the session expires, without fraction or exponent; null means never",
    }
    criteria: Schema = {
        "type": ["string", "null"],
        "maxLength": MAX_CRITERIA_BYTES,
        "description": f"at most {MAX_CRITERIA_BYTES} bytes of UTF-8",
    }
    return {
        "UserIdentifier": user,
        "Configs": configs,
        "SessionId": {"type": "string", "pattern": f"^({_ANY_UUID})$"},
        "NewSession": {
            "type": "object",
            "properties": {
                "user": {"anyOf": [ref("UserIdentifier"), {"type": "null"}]},
                "configs": {"anyOf": [ref("Configs"), {"type": "null"}]},
                "disable_task_tracking": {"type": ["boolean", "null"], "default": False},
                "use_uuid": {
                    "type": ["string", "null"],
                    "pattern": f"^({_ANY_UUID})?$",
                    "description": "the id of the new session; if a session has this id already, the response is that session",
                },
                "ttl": ttl,
            },
        },
        "ChangedConfigs": {
            "type": "object",
            "properties": {"configs": ref("Configs"), "ttl": ttl},
            "required": ["configs"],
        },
        "ChangedProjectConfigs": {
            **configs,
            "minProperties": 1,
            "properties": {
                "session_ttl": {**ttl, "description": "the ttl of sessions that are created without a ttl"},
                **dict.fromkeys(CRITERIA, criteria),
            },
        },
        "Session": _closed(
            {
                "id": _UUID,
                "project_id": _UUID,
                "user_id": {**_UUID, "type": ["string", "null"]},
                "space_id": {"type": "null"},
                "disable_task_tracking": {"type": "boolean"},
                "configs": {"type": ["object", "null"]},
                "created_at": _TIME,
                "updated_at": _TIME,
                "expires_at": {**_TIME, "type": ["string", "null"]},
                "revision": {"type": "integer", "minimum": 1, "description": "counts the writes of the session"},
            }
        ),
        "SessionPage": {**_page("Session"), "description": _page_limits(limits)},
        "WholeConfigs": _closed({"configs": {"type": "object"}}),
        "CopiedSession": _closed({"old_session_id": _UUID, "new_session_id": _UUID}),
        "User": _closed(
            {
                "id": _UUID,
                "project_id": _UUID,
                "identifier": {"type": "string", "minLength": 1},
                "created_at": _TIME,
                "updated_at": _TIME,
            }
        ),
        "UserPage": _page("User"),
        "Resources": _closed(
            {
                "counts": _closed(
                    {
                        "sessions_count": {"type": "integer", "minimum": 0},
                        "disks_count": {"const": 0},
                        "skills_count": {"const": 0},
                    }
                )
            }
        ),
        "Error": _closed(
            {
                "code": {"type": "integer", "minimum": 400, "description": "the HTTP status"},
                "msg": {"type": "string", "minLength": 1, "description": "one sentence for humans; it may change"},
                "reason": {
                    "enum": [reason for of_status in reasons().values() for reason in of_status],
                    "description": "a stable word for programs",
                },
            },
            {"error": {"type": "string", "minLength": 1, "description": "more detail"}},
        ),
    }


def error(status: int, allowed_reasons: tuple[str, ...]) -> Schema:
    """The envelope of an error with `status` and one of `allowed_reasons`."""
    return {**ref("Error"), "properties": {"code": {"const": status}, "reason": {"enum": list(allowed_reasons)}}}


def data(schema: Schema) -> Schema:
    """The envelope of a success with data."""
    return _closed({"code": {"const": 0}, "msg": {"const": ""}, "data": schema})


def message_envelope(text: str) -> Schema:
    """The envelope of a success without data, whose msg is `text`."""
    return _closed({"code": {"const": 0}, "msg": {"const": text}})


#: The envelope of a success without data or message.
EMPTY_ENVELOPE = message_envelope("")

#: The envelope of /ready, with warnings about Redis's configuration.
READY = _closed(
    {
        "code": {"const": 0},
        "msg": {"const": "ok"},
        "data": _closed({"warnings": {"type": "array", "items": {"type": "string"}}}),
    }
)

# Parameters


def limit(default: int, minimum: int, maximum: int) -> Schema:
    """The parameter `limit` of a list: the most items of a page."""
    return _parameter("limit", {"type": "integer", "minimum": minimum, "maximum": maximum, "default": default})


def _parameter(name: str, schema: Schema, location: str = "query", *, required: bool = False) -> Schema:
    return {"name": name, "in": location, "schema": schema} | ({"required": True} if required else {})


CURSOR = _parameter("cursor", {"type": "string", "description": "next_cursor of the previous page"})
TIME_DESC = _parameter("time_desc", {"type": "boolean", "default": False, "description": "newest first"})
USER = _parameter("user", {"type": "string", "description": "the identifier of a user"})
FILTER: Schema = {
    "name": "filter_by_configs",
    "in": "query",
    "description": "a JSON object that the configs of a session must contain, in the sense of jsonb @> in Postgres",
    "content": {"application/json": {"schema": {"type": ["object", "null"]}}},
}
_ETAG = '(W/)?"[!#-~]*"'
_ETAGS: Schema = {"type": "string", "pattern": rf"^(\*|{_ETAG}(, ?{_ETAG})*)$"}
#: The conditions (RFC 9110, 13.1) of a request for one session.
CONDITIONS = (_parameter("If-Match", _ETAGS, "header"), _parameter("If-None-Match", _ETAGS, "header"))
IF_ID_IS_FREE = _parameter(
    "If-None-Match", {"const": "*", "type": "string", "description": "412 if a session has the id use_uuid already"}, "header"
)
#: The parameters in braces in paths.
IN_PATH = {
    "session_id": _parameter("session_id", ref("SessionId"), "path", required=True),
    "identifier": _parameter("identifier", {"type": "string", "minLength": 1}, "path", required=True),
}
