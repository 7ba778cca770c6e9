"""GET /docs: the API in Swagger UI. Its files come from the package swagger-ui-bundle-v2; the page and its script are ours."""

from functools import lru_cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from aiohttp import hdrs

from service.errors import RouteNotFound
from service.http.api import representations
from service.http.server.context import Call
from service.http.server.headers import Headers
from service.http.server.response import Response

_PAGE, _OURS = "index.html", Path(__file__).with_name("docs")
#: The files below /docs that are not ours.
_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png")
_MEDIA_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".png": b"image/png",
}
#: Scripts and styles come from this server, and so does everything that they request. Swagger UI has images in its style sheet.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: A browser asks each time whether its copy is current, so that it never mixes the files of two releases.
_HEADERS = (
    b"Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    b"Content-Security-Policy: %b\r\n" % _POLICY
)


class _Asset(NamedTuple):
    body: bytes
    media_type: bytes
    etag: str


async def redirect(_: Call) -> Response:
    """GET /: leads to the page, also below a path of a proxy."""
    response = representations.ok(status=302)
    response.headers = b"Location: docs\r\n"
    return response


async def page(call: Call) -> Response:
    """GET /docs."""
    return _response(call.request.headers, _PAGE)


async def file(call: Call) -> Response:
    """GET /docs/{file}: a script, a style sheet or an image of the page.

    Raises:
        RouteNotFound: it has no such file.
    """
    if call.parameter not in (*_SWAGGER_UI, "initializer.js"):
        raise RouteNotFound
    return _response(call.request.headers, call.parameter)


def _response(request_headers: Headers, name: str) -> Response:
    content = _load(name)
    headers = b'ETag: "%b"\r\n%b' % (content.etag.encode(), _HEADERS)
    if _is_current(content.etag, request_headers):
        return Response(status=304, headers=headers)
    return Response(content.body, headers=headers, content_type=content.media_type)


@lru_cache
def _load(name: str) -> _Asset:
    """A file of the page; a worker keeps each in memory from its first use."""
    body = ((_swagger_ui() if name in _SWAGGER_UI else _OURS) / name).read_bytes()
    return _Asset(body, _MEDIA_TYPES[Path(name).suffix], sha256(body).hexdigest()[:32])


def _swagger_ui() -> Path:
    """The folder of Swagger UI's files. Importing their package would take 40 ms."""
    spec = find_spec("swagger_ui_bundle")
    assert spec is not None  # noqa: S101 - it is a dependency
    assert spec.origin is not None  # noqa: S101 - as above
    (folder,) = Path(spec.origin).parent.glob("vendor/swagger-ui-*")
    return folder


def _is_current(etag: str, headers: Headers) -> bool:
    """Whether the client has the file with this ETag. The lists that browsers send have one element."""
    tags = ",".join(headers.getall(hdrs.IF_NONE_MATCH, ())).split(",")
    return f'"{etag}"' in [tag.strip().removeprefix("W/") for tag in tags]
