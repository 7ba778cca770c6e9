"""Bare aiohttp, the ceiling: the same paths, and for each method the bytes and headers that the service answers.

`python -m scripts.benchmark.servers.bare_aiohttp RESPONSES`, a JSON file:
{"GET": {"status": 200, "headers": {…}, "body": "…"}, …}.
"""

import json
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from scripts.benchmark.load.connection import Response
from scripts.benchmark.load.requests import API
from scripts.benchmark.servers.aiohttp_server import AiohttpServer, serve

_CONFIGS = f"{API}/session/{{session_id}}/configs"
_PATHS = {"GET": _CONFIGS, "PATCH": _CONFIGS, "POST": f"{API}/session"}

#: Headers that aiohttp adds.
_ADDED_HEADERS = ("content-length", "date", "server", "connection")


def start_bare_aiohttp(home: Path, method: str, response: Response) -> AiohttpServer:
    """Start a server that answers every request of `method` with `response`."""
    home.mkdir()
    path = home / "responses.json"
    content = {"status": response.status, "headers": response.headers, "body": response.body.decode()}
    path.write_text(json.dumps({method: content}), encoding="utf-8")
    return AiohttpServer(home, "bare_aiohttp", str(path))


def make_app(responses: Path) -> web.Application:
    """The application that gives the responses in a file."""
    app = web.Application()
    for method, response in json.loads(responses.read_text(encoding="utf-8")).items():
        headers = {name: value for name, value in response["headers"].items() if name not in _ADDED_HEADERS}
        app.router.add_route(method, _PATHS[method], _handler(response["status"], headers, response["body"].encode()))
    return app


def _handler(status: int, headers: dict[str, str], body: bytes) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        if request.body_exists:
            await request.read()
        return web.Response(status=status, headers=headers, body=body)

    return handle


if __name__ == "__main__":
    serve(make_app(Path(sys.argv[1])))
