"""The HTTP requests, rendered once as the bytes on the wire: every server of a comparison gets the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import orjson

API = "/api/v1"
#: The API key that every server here accepts.
API_KEY = "sk-ac-bench"


def request(
    method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None, api_key: str = API_KEY
) -> bytes:
    """One HTTP request; `body` is sent as JSON, and no key if `api_key` is empty."""
    content = b"" if body is None else orjson.dumps(body)
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if api_key:
        lines.append(f"Authorization: Bearer {api_key}")
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def get_request(session_id: str, headers: Mapping[str, str] | None = None) -> bytes:
    """GET /session/{session_id}/configs."""
    return request("GET", _configs_path(session_id), headers=headers)


def create_request(configs: object, *, session_id: str | None = None) -> bytes:
    """POST /session; without `session_id` the server chooses one."""
    return request("POST", f"{API}/session", {"configs": configs} | ({"use_uuid": session_id} if session_id else {}))


def put_request(session_id: str, configs: object) -> bytes:
    """PUT /session/{session_id}/configs."""
    return request("PUT", _configs_path(session_id), {"configs": configs})


def patch_request(session_id: str, changes: object, suffix: str = "") -> bytes:
    """PATCH /session/{session_id}/configs; `suffix` continues the path."""
    return request("PATCH", _configs_path(session_id) + suffix, {"configs": changes})


def delete_request(session_id: str) -> bytes:
    """DELETE /session/{session_id}."""
    return request("DELETE", f"{API}/session/{session_id}")


def list_request(configs: object, *, descending: bool = False, cursor: str | None = None, limit: int = 20) -> bytes:
    """GET /session, filtered by `configs`: the page after `cursor`."""
    after = f"&cursor={quote(cursor)}" if cursor else ""
    query = f"limit={limit}&time_desc={str(descending).lower()}&filter_by_configs={quote(orjson.dumps(configs))}{after}"
    return request("GET", f"{API}/session?{query}")


def _configs_path(session_id: str) -> str:
    return f"{API}/session/{session_id}/configs"


def write_requests(path: Path, requests: Sequence[bytes]) -> Path:
    """Write a file of requests for the load generators: each after a line with its length."""
    path.write_bytes(b"".join(b"%d\n%b" % (len(one), one) for one in requests))
    return path


def read_requests(path: Path) -> list[bytes]:
    """Read a file that `write_requests` wrote."""
    requests = []
    with path.open("rb") as file:
        while length := file.readline():
            requests.append(file.read(int(length)))
    return requests
