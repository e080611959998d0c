"""Opens the dashboard for a test, and watches that nothing goes wrong there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Browser, Page

from tests.browser.chromium import PHONE, Complaints, opened
from tests.browser.stage import Stage

VIEWS = ("overview", "queue", "tasks", "runs", "teams", "approvals", "workers", "dead", "usage", "budgets", "providers")


class Desk:
    """Pages of one test."""

    def __init__(self, browser: Browser, stage: Stage, pages: AsyncExitStack, screenshots: Path) -> None:
        self._browser = browser
        self._stage = stage
        self._pages = pages
        self._screenshots = screenshots
        self._complaints: list[Complaints] = []

    async def open(
        self,
        view: str = "overview",
        *,
        key: str | None = None,
        is_dark: bool = False,
        is_phone: bool = False,
        expected: tuple[str, ...] = (),
        url: str = "",
    ) -> Page:
        """A view of the dashboard, in a browser profile of its own; without `key`, with one that may do everything.
        `expected`: parts of complaints that the test provokes. `url`: instead of the gateway's own."""
        page, complaints = await self._pages.enter_async_context(
            opened(
                self._browser,
                url or self._stage.url,
                key=self._stage.key if key is None else key,
                is_dark=is_dark,
                viewport=PHONE if is_phone else None,
            )
        )
        complaints.expected = expected
        self._complaints.append(complaints)
        await page.goto(f"/dashboard#/{view}")
        return page

    async def show(self, page: Page, view: str) -> None:
        """Another view in the same page; returns when its content stands."""
        await page.goto(f"/dashboard#/{view}")
        await settled(page)

    async def keep(self, page: Page, name: str) -> None:
        """A screenshot as an artefact."""
        await page.screenshot(path=self._screenshots / f"{name}.png", full_page=True)

    def check(self) -> None:
        """Raise if a page complained."""
        for complaints in self._complaints:
            complaints.check()


async def settled(page: Page) -> None:
    """Wait until the feed is live and the view has its figures."""
    await page.locator("#live.is-live").wait_for()
    await page.wait_for_function(
        "() => { const main = document.getElementById('main'); return main.firstElementChild"
        " && !/Loading…|Waiting for the first figures|asking them/.test(main.textContent); }"
    )
