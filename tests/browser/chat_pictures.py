"""The pictures of the chat page, as PNG by name."""

from __future__ import annotations

import re

from playwright.async_api import Browser, Page, expect

from tests.browser.chat_desk import answers, ended, rows, say
from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import PHONE, opened

_WIDE = {"width": 1200, "height": 910}
_BEFORE = (
    ("writer", "Draft a reply to the supplier"),
    ("research", "Compare the two offers for the new press"),
    ("writer", "Shorten the minutes of Monday's meeting"),
)
_QUESTION = "Where are my orders?"


async def take_chat_pictures(browser: Browser, stage: ChatStage) -> dict[str, bytes]:
    """A conversation in light, dark and on a phone, and a new one."""
    key = stage.new_key()
    pictures: dict[str, bytes] = {}
    async with opened(browser, stage.url, key=key, viewport=_WIDE) as (page, complaints):
        for agent, text in _BEFORE:
            await _begin(page, agent, text)
            await ended(page)
        await _new(page, "support")
        pictures["chat-new"] = await page.screenshot()
        await _begin(page, "research", "Read the annual report and list its risks")
        await _begin(page, "support", _QUESTION)
        await ended(page)
        await expect(rows(page).filter(has_text="annual report")).to_contain_text("answering")
        place = page.url.partition("#/")[2]
        pictures["chat"] = await page.screenshot()
        await _stop_other(page)
        complaints.check()
    for name, viewport, is_dark in (("chat-dark", _WIDE, True), ("chat-phone", PHONE, False)):
        async with opened(browser, stage.url, key=key, viewport=viewport, is_dark=is_dark) as (page, complaints):
            await page.goto(f"/chat#/{place}")
            await ended(page)
            if is_dark:
                await answers(page).locator("summary", has_text="Thought").click()
                await answers(page).locator("summary", has_text="search_orders").click()
                await page.locator(".thread").evaluate("(box) => { box.scrollTop = 0; }")
                await expect(page.get_by_role("button", name="Jump to latest")).to_be_visible()
            pictures[name] = await page.screenshot()
            complaints.check()
    return pictures


async def _new(page: Page, agent: str) -> None:
    """The page where a conversation with an agent begins, once the one before it is gone."""
    await page.goto(f"/chat#/new/{agent}")
    await expect(page.locator(".asked-text")).to_have_count(0)
    await expect(page.get_by_role("radio").first).to_be_visible()


async def _begin(page: Page, agent: str, text: str) -> None:
    """A new conversation. Only once it has an address of its own does the page stay where one leads it."""
    await _new(page, agent)
    await say(page, text)
    await expect(page).not_to_have_url(re.compile("#/new/"))
    await expect(page.locator(".asked-text")).to_have_text(text)


async def _stop_other(page: Page) -> None:
    await rows(page).filter(has_text="annual report").get_by_role("link").click()
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(answers(page)).to_contain_text(["Stopped."])
