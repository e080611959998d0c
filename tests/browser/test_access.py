"""The dashboard for those who use no mouse, no light background, or a screen reader."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.browser.chromium import WITHIN_MS, violations
from tests.browser.desk import VIEWS, Desk, settled
from tests.browser.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(desk: Desk, stage: Stage, axe: str, theme: str) -> None:
    """No view violates a rule, nor does a dialog; dark, where all but the colours is the same, none about contrast."""
    rules = ("color-contrast",) if theme == "dark" else ()
    page = await desk.open("overview", is_dark=theme == "dark")
    found: dict[str, list[str]] = {}
    for view in (*VIEWS, f"tasks/{stage.ids['done']}", f"tasks/{stage.ids['dead']}"):
        await desk.show(page, view)
        found[view] = await violations(page, axe, rules)
        await desk.keep(page, f"{theme}-{view.split('/')[0]}")
    await page.goto("/dashboard#/queue")
    await page.get_by_role("button", name="Pause delivery").click()
    found["dialog"] = await violations(page, axe, rules)
    assert {view: lines for view, lines in found.items() if lines} == {}


async def test_the_theme_is_the_systems_until_somebody_chooses(desk: Desk) -> None:
    """The button goes from the system's to light to dark, and the choice outlives a reload."""
    page = await desk.open("overview", is_dark=True)
    root = page.locator("html")
    await expect(root).to_have_attribute("data-theme", "dark")
    button = page.get_by_role("button", name=re.compile("Theme"))
    await button.click()
    await expect(root).to_have_attribute("data-theme", "light")
    await button.click()
    await expect(button).to_have_attribute("aria-label", "Theme: dark")
    await page.emulate_media(color_scheme="light")
    await page.reload()
    await expect(root).to_have_attribute("data-theme", "dark")
    back = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert max(map(int, re.findall(r"\d+", back)[:3])) < 64, back


async def test_keys_alone_reach_everything(desk: Desk) -> None:
    """Skip link, navigation, a dialog that keeps the focus and gives it back: all without a mouse, all visible."""
    page = await desk.open("queue")
    await settled(page)
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    await page.keyboard.press("Enter")
    assert await page.evaluate("() => document.activeElement.id") == "main"
    await expect(page.get_by_role("heading", level=1)).to_have_text("Queue")

    await page.keyboard.press("Tab")
    pause = page.get_by_role("button", name="Pause delivery")
    await expect(pause).to_be_focused()
    assert await _outline(page) != "none"
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    for _ in range(4):
        await page.keyboard.press("Tab")
        assert await page.evaluate(
            "() => { const at = document.activeElement; return at === document.body || !!at.closest('dialog'); }"
        )
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(pause).to_be_focused()

    await page.get_by_role("link", name=re.compile("^Usage")).focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Usage")
    assert await page.evaluate("() => document.activeElement.id") == "main"


async def test_a_focused_row_survives_what_comes_in(desk: Desk) -> None:
    """Live figures do not take the focus away, close what was opened, or empty what was typed."""
    page = await desk.open("dead")
    await settled(page)
    box = page.get_by_role("checkbox", name=re.compile("^Choose")).first
    await box.check()
    await box.focus()
    before = await page.locator("tbody time").first.text_content()
    await expect(page.locator("tbody time").first).not_to_have_text(before or "")
    await expect(box).to_be_focused()
    await expect(box).to_be_checked()


async def _outline(page: Page) -> str:
    style: str = await page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    return style
