"""Bare aiohttp, the ceiling: the same paths, and for each method the same bytes and headers that our service answers.

`python -m scripts.benchmark.servers.bare_aiohttp ANSWERS`, a JSON file:
{"GET": {"status": 200, "headers": {…}, "body": "…"}, …}.
"""

import json
import sys
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from scripts.benchmark.load.generators import API
from scripts.benchmark.servers import serve

_CONFIGS = f"{API}/session/{{session_id}}/configs"
PATHS = {"GET": _CONFIGS, "PATCH": _CONFIGS, "POST": f"{API}/session"}

#: Headers that aiohttp writes by itself.
_ITS_OWN = ("content-length", "date", "server", "connection")


def make_app(answers: Path) -> web.Application:
    """The application that gives `answers`."""
    app = web.Application()
    for method, answer in json.loads(answers.read_text(encoding="utf-8")).items():
        headers = {name: value for name, value in answer["headers"].items() if name not in _ITS_OWN}
        app.router.add_route(method, PATHS[method], _handler(answer["status"], headers, answer["body"].encode()))
    return app


def _handler(status: int, headers: dict[str, str], body: bytes) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        if request.body_exists:
            await request.read()
        return web.Response(status=status, headers=headers, body=body)

    return handle


if __name__ == "__main__":
    serve(make_app(Path(sys.argv[1])))
