"""The page at /docs, as a client sees it; tests/acceptance/test_docs_in_a_browser.py opens it in a browser."""

import http.client
import re
from pathlib import Path

import pytest

from service.http.api import docs_page
from service.http.api.routes import PAGES
from tests.support.server import PATIENCE, Server

FILES = {
    "/docs": "text/html; charset=utf-8",
    "/docs/initializer.js": "text/javascript; charset=utf-8",
    "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "/docs/swagger-ui.css": "text/css; charset=utf-8",
    "/docs/favicon-32x32.png": "image/png",
}
#: No file of the page is larger; a worker keeps all of them in memory.
LARGEST = 2 * 1024 * 1024


def ask(server: Server, method: str, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(server.origin.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", FILES)
def test_a_file_of_the_page_has_its_media_type_and_needs_no_key(server: Server, path: str) -> None:
    response, body = ask(server, "GET", path)
    assert (response.status, response.headers["Content-Type"]) == (200, FILES[path])
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert 0 < len(body) == int(response.headers["Content-Length"]) < LARGEST


@pytest.mark.parametrize("path", ["/", *FILES])
def test_head_has_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    def without_own(headers: http.client.HTTPMessage) -> list[tuple[str, str]]:
        return [item for item in headers.items() if item[0] not in ("Date", "X-Request-Id")]

    (get, _), (head, body) = ask(server, "GET", path), ask(server, "HEAD", path)
    assert (head.status, without_own(head.headers), body) == (get.status, without_own(get.headers), b"")


@pytest.mark.parametrize("path", FILES)
def test_a_browser_asks_whether_its_copy_is_current(server: Server, path: str) -> None:
    response, _ = ask(server, "GET", path)
    etag = response.headers["ETag"]
    assert response.headers["Cache-Control"] == "no-cache"
    for tags in (etag, f"W/{etag}", f'"other", {etag}'):
        current, body = ask(server, "GET", path, If_None_Match=tags)
        assert (current.status, current.headers["ETag"], body) == (304, etag, b"")
    assert ask(server, "GET", path, If_None_Match='"other"')[0].status == 200


@pytest.mark.parametrize("path", FILES)
def test_only_scripts_and_styles_of_this_server_run(server: Server, path: str) -> None:
    response, _ = ask(server, "GET", path)
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


def test_the_page_names_only_files_that_the_server_has_and_no_other_address() -> None:
    page = (Path(docs_page.__file__).with_name("docs") / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert {f"/{name}" for name in names} == set(FILES) - {"/docs"}
    assert "<script>" not in page
    assert "style=" not in page


def test_the_root_leads_to_the_page(server: Server) -> None:
    response, body = ask(server, "GET", "/")
    # Relative, for a proxy that serves this server below a path of its own.
    assert (response.status, response.headers["Location"]) == (302, "docs")
    assert body == b'{"code":0,"msg":""}'


@pytest.mark.parametrize(
    "path",
    ["/docs/", "/docs/index.html", "/docs/swagger-ui.js", "/docs/..%2Fdocs_page.py", "/docs/%2Fetc%2Fpasswd", "/docs/a/b"],
)
def test_other_files_are_not_found(server: Server, path: str) -> None:
    response, body = ask(server, "GET", path)
    assert (response.status, response.headers["Content-Type"]) == (404, "application/json")
    assert b'"reason":"route_not_found"' in body


@pytest.mark.parametrize("path", [path for _, path, _ in PAGES])
def test_the_pages_can_only_be_read(server: Server, path: str) -> None:
    response, _ = ask(server, "POST", path.replace("{file}", "initializer.js"))
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
