"""Opens the chat page for a test, and watches that nothing goes wrong there."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import PHONE, Complaints, opened


class ChatDesk:
    """Pages of one test."""

    def __init__(self, browser: Browser, stage: ChatStage, pages: AsyncExitStack, screenshots: Path) -> None:
        self._browser = browser
        self._pages = pages
        self._screenshots = screenshots
        self._complaints: list[Complaints] = []
        self.stage = stage

    async def open(
        self,
        place: str = "new",
        *,
        key: str | None = None,
        is_dark: bool = False,
        is_phone: bool = False,
        expected: tuple[str, ...] = (),
    ) -> Page:
        """A place of the chat page, in a browser profile of its own; without `key`, with one of this test's own that
        may talk to agents. `expected`: parts of complaints that the test provokes."""
        page, complaints = await self._pages.enter_async_context(
            opened(
                self._browser,
                self.stage.url,
                key=self.stage.new_key() if key is None else key,
                is_dark=is_dark,
                viewport=PHONE if is_phone else None,
            )
        )
        complaints.expected = expected
        self._complaints.append(complaints)
        await page.goto(f"/chat#/{place}")
        return page

    async def keep(self, page: Page, name: str) -> None:
        """A screenshot as an artefact."""
        await page.screenshot(path=self._screenshots / f"{name}.png")

    def check(self) -> None:
        """Raise if a page complained."""
        for complaints in self._complaints:
            complaints.check()


def message_box(page: Page) -> Locator:
    """Where messages are written."""
    return page.get_by_role("textbox", name="Message", exact=True)


def answers(page: Page) -> Locator:
    """The answers of the open conversation."""
    return page.locator(".entry .answer")


def rows(page: Page) -> Locator:
    """The list of conversations."""
    return page.locator(".conversation")


async def say(page: Page, text: str) -> None:
    """Write something and send it."""
    await expect(page.get_by_role("radio").or_(page.locator(".entry")).first).to_be_visible()
    await message_box(page).fill(text)
    await message_box(page).press("Enter")


async def ended(page: Page) -> None:
    """Wait until nothing is being answered."""
    await expect(page.locator(".footnote").last).to_be_visible()
    await expect(page.get_by_role("button", name="Stop", exact=True)).to_be_hidden()


async def words(page: Page, *, beyond: int = 0) -> int:
    """Wait until the slow answer has more words than that; how many it has."""
    await expect(answers(page).last.locator(".md")).to_contain_text(f"word-{beyond + 1} ")
    text = await answers(page).last.locator(".md").inner_text()
    found = [int(number) for number in re.findall(r"word-(\d+) ", text)]
    assert found == list(range(len(found))), "words are missing, or came twice"
    return len(found)
