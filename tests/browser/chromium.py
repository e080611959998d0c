"""A real browser, headless, and pages that complain."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WITHIN_MS = 30_000
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}
STORED_KEY = "shoal.key"


def chromium_program() -> str | None:
    """The browser on PATH, if there is one."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@asynccontextmanager
async def launched(program: str) -> AsyncIterator[Browser]:
    """A browser for the length of a block."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-lcd-text"],
        )
        try:
            yield browser
        finally:
            await browser.close()


class Complaints:
    """What a page's console said, and requests that failed in a way that nobody meant."""

    def __init__(self, page: Page) -> None:
        self.found: list[str] = []
        self.expected: tuple[str, ...] = ()
        """Parts of complaints that a test provokes."""
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.found.append(f"exception: {error}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"{message.type}: {message.text}")

    def check(self) -> None:
        """Raise if there was one that no test expected."""
        bad = [text for text in self.found if not any(part in text for part in self.expected)]
        assert not bad, f"the page complained: {bad}"


@asynccontextmanager
async def opened(
    browser: Browser, url: str, *, key: str = "", is_dark: bool = False, viewport: dict[str, int] | None = None
) -> AsyncIterator[tuple[Page, Complaints]]:
    """A page of a browser context of its own, which has `key` from the start; nothing is loaded yet."""
    context: BrowserContext = await browser.new_context(
        base_url=url,
        color_scheme="dark" if is_dark else "light",
        viewport=viewport or DESKTOP,  # type: ignore[arg-type] # a TypedDict of theirs
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Berlin",
    )
    context.set_default_timeout(WITHIN_MS)
    if key:
        await context.add_init_script(f"sessionStorage.setItem({json.dumps(STORED_KEY)}, {json.dumps(key)})")
    try:
        page = await context.new_page()
        yield page, Complaints(page)
    finally:
        await context.close()


def screenshots_folder(default: Path) -> Path:
    """Where screenshots are kept: `SHOAL_TEST_SCREENSHOTS`, or the given folder."""
    folder = Path(os.environ.get("SHOAL_TEST_SCREENSHOTS") or default)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def violations(page: Page, axe: str, rules: Sequence[str] = ()) -> list[str]:
    """What axe finds against WCAG 2.2 AA and its best practices, or against these rules alone; a line each."""
    has_axe = await page.evaluate("() => 'axe' in window")
    if not has_axe:
        await page.evaluate(axe)
    options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
    found: dict[str, Any] = await page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{violation['id']} ({violation['impact']}): {violation['help']}: "
        + "; ".join(f"{node['target']} {node['failureSummary']}" for node in violation["nodes"][:3])
        for violation in found["violations"]
    ]
