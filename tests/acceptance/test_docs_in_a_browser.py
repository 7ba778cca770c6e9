"""The page at /docs in Debian's Chromium, headless: it lists every route and performs calls with a key.

Without Chromium these tests are skipped; in CI they fail.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Locator, Page, async_playwright

from service.http.api.routes import ROUTES
from tests.support.http import Api

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="Chromium is not on PATH; on Debian: apt-get install chromium"
)


@pytest.fixture
async def page(api: Api) -> AsyncIterator[Page]:
    """The page, opened at the server's root. It must neither break its security policy nor ask another server."""
    assert CHROMIUM is not None, "Chromium is not on PATH"
    problems: list[str] = []
    async with async_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = await browser.new_page()
        page.on("console", lambda message: _note_message(message.text, problems))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: _note_foreign(request.url, api.server.origin, problems))
        await page.goto(f"{api.server.origin}/")
        await page.locator(".opblock").first.wait_for()
        yield page
        await browser.close()
    assert problems == []


def _note_message(text: str, problems: list[str]) -> None:
    # Chromium logs each response with the status of an error.
    if not re.fullmatch(r"Failed to load resource: the server responded with a status of 4\d\d \(.*\)", text):
        problems.append(text)


def _note_foreign(url: str, origin: str, problems: list[str]) -> None:
    if not url.startswith((f"{origin}/", "data:", "blob:")):
        problems.append(f"the page requests {url}")


async def open_operation(page: Page, operation_id: str) -> Locator:
    """The box of an operation, unfolded."""
    box = page.locator(f"[id='operations-default-{operation_id}']")
    await box.locator(".opblock-summary-control").click()
    await box.locator(".opblock-body").wait_for()
    return box


async def execute(box: Locator) -> tuple[str, str]:
    """Perform the call; status and body of the response, as the page shows them."""
    await box.locator("button.execute").click()
    response = box.locator(".live-responses-table .response").first
    status = await response.locator(".response-col_status").inner_text()
    return status.strip(), await response.locator(".highlight-code code").first.inner_text()


async def enter_key(page: Page, key: str) -> None:
    await page.locator(".auth-wrapper button.authorize").click()
    await page.locator(".modal-ux input").fill(key)
    await page.locator(".modal-ux button.authorize").click()
    await page.locator(".modal-ux button.btn-done").click()


async def test_the_page_lists_every_route(page: Page) -> None:
    boxes = page.locator(".opblock-summary")
    listed = {tuple((await box.inner_text()).replace("\u200b", "").split("\n")[:2]) for box in await boxes.all()}
    assert listed == {(route.method, route.path) for route in ROUTES}


async def test_a_call_needs_the_key_that_somebody_enters(page: Page, api: Api) -> None:
    ping = await open_operation(page, "ping")
    assert (await execute(ping))[0] == "401"
    await ping.locator("button.btn-clear").click()
    await enter_key(page, api.key)
    status, body = await execute(ping)
    assert (status, re.sub(r"\s", "", body)) == ("200", '{"code":0,"msg":"pong"}')
    # A page that is loaded again has forgotten the key.
    assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0


async def test_a_session_can_be_created_by_hand(page: Page, api: Api) -> None:
    await enter_key(page, api.key)
    create = await open_operation(page, "create_session")
    await create.locator("textarea.body-param__text").fill('{"user": "alice", "configs": {"agent": "bot1"}}')
    status, body = await execute(create)
    assert status == "201"
    (session,) = api.page(user="alice")["items"]
    assert session["configs"] == {"agent": "bot1"}
    assert session["id"] in body
