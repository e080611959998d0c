"""The chat page for those who use no mouse, a phone, no light background, or a screen reader; and when something is
in the way."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace
from playwright.async_api import Locator, Page, expect

from tests.browser.chat_desk import ChatDesk, answers, ended, message_box, rows, say, words
from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import WITHIN_MS, violations
from worker.agents.model import Agent
from worker.gateway.context import Gateway

NOBODYS = "00000000-0000-0000-0000-000000000000"

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing(chat: ChatDesk, axe: str, theme: str) -> None:
    """Neither before a conversation, nor with everything unfolded while it is answered, nor in a dialog."""
    page = await chat.open(is_dark=theme == "dark")
    await expect(page.get_by_role("radio").first).to_be_visible()
    found = {"new": await violations(page, axe)}
    await say(page, "Where are my orders?")
    await ended(page)
    for summary in await page.locator("details summary").all():
        await summary.click()
    await chat.keep(page, f"chat-{theme}")
    await say(page, "broken")
    await expect(page.get_by_role("button", name="Retry")).to_be_visible()
    await say(page, "slow one")
    await words(page, beyond=1)
    found["running"] = await violations(page, axe)
    await page.get_by_role("button", name="Stop", exact=True).click()
    await page.get_by_role("button", name=re.compile("^Rename")).click()
    found["dialog"] = await violations(page, axe)
    assert {place: lines for place, lines in found.items() if lines} == {}


async def test_a_phone_has_the_list_in_a_drawer(chat: ChatDesk, axe: str) -> None:
    """Nothing is cut off at 360 pixels; the drawer takes the focus and gives it back."""
    page = await chat.open(is_phone=True)
    await say(page, "Where are my orders?")
    await ended(page)
    await _fits(page)
    button = page.get_by_role("button", name="Conversations")
    await expect(rows(page)).not_to_be_in_viewport()
    await button.click()
    await expect(rows(page)).to_be_in_viewport(ratio=1)
    await expect(page.get_by_role("button", name="Close the list")).to_be_focused()
    assert await violations(page, axe) == []
    await chat.keep(page, "chat-drawer")
    await page.keyboard.press("Escape")
    await expect(rows(page)).not_to_be_in_viewport()
    await expect(button).to_be_focused()
    await button.click()
    await page.get_by_role("link", name="New conversation").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    await expect(rows(page)).not_to_be_in_viewport()
    await _fits(page)


async def test_keys_alone_reach_everything(chat: ChatDesk) -> None:
    """Pick an agent, ask, open what is folded, ask again, rename: without a mouse, and the focus is never lost."""
    page = await chat.open()
    await expect(page.get_by_role("radio").first).to_be_visible()
    await expect(message_box(page)).to_be_focused()
    skip = page.get_by_role("link", name="Skip to the message box")
    await _back_to(page, skip)
    await expect(skip).to_be_in_viewport()
    await page.keyboard.press("Enter")
    await expect(message_box(page)).to_be_focused()
    chosen = page.get_by_role("radio", checked=True)
    await _back_to(page, chosen)
    await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("radio", name=re.compile("^Research"))).to_be_checked()
    await expect(page.locator("#agent")).to_have_text("Research")
    await page.get_by_role("button", name="What can you help me with?").focus()
    await page.keyboard.press("Enter")
    await expect(message_box(page)).to_have_value("What can you help me with?")
    await expect(message_box(page)).to_be_focused()
    await page.keyboard.press("Control+a")
    await page.keyboard.type("Where are my orders?")
    await page.keyboard.press("Enter")
    await ended(page)
    await expect(message_box(page)).to_be_focused()
    thought = page.locator("details.thinking summary")
    await _back_to(page, thought)
    await page.keyboard.press("Enter")
    await expect(page.locator("details.thinking .text")).to_be_visible()
    await _back_to(page, page.get_by_role("button", name=re.compile("^Rename")))
    await page.keyboard.press("Enter")
    await page.keyboard.type("By keys")
    await page.keyboard.press("Enter")
    await expect(rows(page)).to_contain_text(["By keys"])
    await expect(page.get_by_role("button", name="Rename “By keys”")).to_be_focused()


async def test_what_is_said_is_told_in_sentences(chat: ChatDesk) -> None:
    """A screen reader hears what the agent does, its answer and its end, and not every piece as it comes."""
    page = await chat.open()
    await say(page, "hello")
    await ended(page)
    heard = page.get_by_role("log").locator("p")
    await say(page, "Where are my orders?")
    await expect(heard.filter(has_text="You have two orders this month")).to_have_count(1)
    await expect(heard.filter(has_text="Uses the tool shipping_status.")).to_have_count(1)
    await expect(heard.last).to_have_text("End of the answer.")
    assert await heard.count() <= 6


async def test_a_key_is_asked_for(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """Without one, with a wrong one, and with one that may not talk to agents: each is told, none loses anything."""
    page = await chat.open(key="wrong", expected=("401",))
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_contain_text("--scope agents.use")
    await dialog.get_by_label("This gateway wants a key").fill(chat_stage.new_key())
    await page.keyboard.press("Enter")
    await say(page, "hello")
    await expect(answers(page)).to_contain_text(["You said: hello"])

    reader = chat_stage.server.make_key(["ops.read"])
    refused = await chat.open(key=reader, expected=("403",))
    await expect(refused.locator(".notice.bad").first).to_contain_text("agents.use")


async def test_what_is_gone_is_told(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """A conversation that is not there, a message that is too long, a gateway that does not answer: in plain words,
    with the way on."""
    page = await chat.open(
        "c/00000000-0000-0000-0000-000000000000/00000000-0000-0000-0000-000000000000",
        expected=("404", "403", "Failed", "ERR_"),
    )
    await expect(page.get_by_role("alert")).to_contain_text("This conversation is not there any more")
    await page.locator(".trouble").get_by_role("link", name="New conversation").click()

    await expect(page.get_by_role("radio").first).to_be_visible()
    await message_box(page).evaluate(
        "(box) => { box.value = 'x'.repeat(200001); box.dispatchEvent(new Event('input')); }"
    )
    await expect(page.get_by_text("1 characters too many")).to_be_visible()
    await expect(page.get_by_role("button", name="Send", exact=True)).to_be_disabled()

    await message_box(page).fill("hello")
    await page.context.set_offline(True)
    await message_box(page).press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer.")
    await expect(message_box(page)).to_have_value("hello")
    await page.context.set_offline(False)
    await message_box(page).press("Enter")
    await ended(page)
    await page.context.set_offline(True)
    await say(page, "are you there?")
    await expect(answers(page).last).to_contain_text("This message was not sent.")
    await page.context.set_offline(False)
    await page.get_by_role("button", name="Send again").click()
    await expect(answers(page).last).to_contain_text("You said: are you there?")
    await expect(answers(page)).to_have_count(2)


async def test_an_agent_that_was_switched_off(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """Its conversations can be read; the page says why they cannot be gone on with."""

    async def declare(gateway: Gateway) -> None:
        await gateway.definitions.agents.create(Agent(slug="guest", name="Guest"))

    async def switch_off(gateway: Gateway) -> None:
        await gateway.definitions.agents.change("guest", lambda agent: replace(agent, is_active=False))

    chat_stage.server.do(declare)
    page = await chat.open("new/guest", expected=("403",))
    await say(page, "hello")
    await ended(page)
    chat_stage.server.do(switch_off)
    await say(page, "still there?")
    await expect(answers(page).last).to_contain_text("You may not talk to this agent now")
    await page.get_by_role("button", name="Edit").click()
    await expect(message_box(page)).to_have_value("still there?")
    await page.reload()
    await expect(answers(page)).to_contain_text(["You said: hello"])
    await expect(page.get_by_text("This agent is not there any more, or it is switched off")).to_be_visible()
    await expect(message_box(page)).to_be_disabled()


async def _fits(page: Page) -> None:
    sizes = await page.evaluate(
        "() => [document.documentElement, document.querySelector('.thread')]"
        ".flatMap((one) => [one.scrollWidth, one.clientWidth])"
    )
    assert sizes[0] <= sizes[1]
    assert sizes[2] <= sizes[3]


async def _back_to(page: Page, wanted: Locator) -> None:
    """Press Shift+Tab until the element has the focus."""
    for _ in range(60):
        await page.keyboard.press("Shift+Tab")
        if await wanted.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError("Shift+Tab does not lead there")
