"""The chat page in a real browser: talking, stopping, several conversations, and coming back."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.browser.chat_desk import ChatDesk, answers, ended, message_box, rows, say, words
from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import WITHIN_MS

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)


async def test_an_answer_unfolds_with_thinking_and_tools(chat: ChatDesk) -> None:
    """An agent is picked, Enter sends, the answer comes with its reasoning, tool calls, results, tokens and cost."""
    page = await chat.open()
    await page.get_by_role("radio", name=re.compile("^Support")).check()
    await message_box(page).press_sequentially("Where are")
    await message_box(page).press("Shift+Enter")
    await message_box(page).press_sequentially("my orders?")
    await message_box(page).press("Enter")
    await ended(page)
    await expect(page).to_have_url(re.compile(r"#/c/[^/]+/[^/]+$"))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Where are my orders?")
    await expect(page.locator("#agent")).to_have_text("Support")
    await expect(page.locator(".asked-text")).to_have_text("Where are\nmy orders?", use_inner_text=True)
    await expect(message_box(page)).to_be_focused()

    answer = answers(page)
    thought = answer.locator("details.thinking")
    await expect(thought.locator(".text")).to_be_hidden()
    await thought.locator("summary").click()
    await expect(thought.locator(".text")).to_contain_text("The customer wants to know")
    found, lost = await answer.locator("details.tool").all()
    await expect(found.locator("summary")).to_contain_text("finished")
    await expect(lost.locator("summary")).to_contain_text("failed")
    await found.locator("summary").click()
    await expect(found.locator("pre").first).to_contain_text('"customer": "c-311",\n  "limit": 5', use_inner_text=True)
    await expect(found.locator("pre").last).to_contain_text('"order": "A-1042"')
    await lost.locator("summary").click()
    await expect(lost.locator("pre").last).to_contain_text("the carrier does not know order")
    await expect(answer.locator("tbody tr")).to_have_count(2)
    await expect(answer.locator(".footnote")).to_contain_text(re.compile(r"1.879 tokens · \$0\.0087"))
    await expect(rows(page).locator(".conversation-title")).to_have_text("Where are my orders?")

    await page.reload()
    await ended(page)
    await expect(page.locator(".asked-text")).to_have_text("Where are\nmy orders?", use_inner_text=True)
    await expect(answers(page).locator("details.tool summary")).to_contain_text(["search_orders", "shipping_status"])
    await expect(answers(page).locator(".footnote")).to_contain_text(re.compile(r"1.879 tokens · \$0\.0087"))


async def test_a_long_result_is_shown_when_wanted(chat: ChatDesk) -> None:
    """The beginning first, all of it on request."""
    page = await chat.open()
    await say(page, "Read the logs")
    await ended(page)
    await page.locator("details.tool summary").click()
    result = page.locator(".tool-result")
    await expect(result).to_contain_text("line 3: all is well")
    await expect(result).not_to_contain_text("line 299")
    await page.get_by_role("button", name=re.compile("^Show all")).click()
    await expect(result).to_contain_text("line 299: all is well")


async def test_an_answer_is_stopped_and_asked_again(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """Stop cancels the task in the fleet; what waited behind it comes back to be edited; the answer can be asked for
    again, and takes the stopped one's place."""
    key = chat_stage.new_key()
    page = await chat.open(key=key)
    await say(page, "slow please")
    await words(page, beyond=2)
    await message_box(page).fill("and then?")
    await page.get_by_role("button", name="Send", exact=True).click()
    await expect(answers(page).last).to_contain_text("Waits for its turn.")
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(answers(page)).to_contain_text(["Stopped."])
    await expect(answers(page)).to_have_count(1)
    await expect(message_box(page)).to_have_value("and then?")
    await expect(message_box(page)).to_be_focused()
    session, conversation = page.url.rsplit("/", 2)[1:]
    async with chat_stage.server.client(key) as client:
        view = (await client.get(f"/v1/sessions/{session}/conversations/{conversation}")).json()
        page_of = await client.get(f"/v1/sessions/{session}/conversations/{conversation}/messages")
    assert view["running"] is None
    assert [message["state"] for message in page_of.json()["messages"]] == ["cancelled"]

    await page.get_by_role("button", name="Try again").click()
    await words(page, beyond=2)
    await expect(answers(page)).to_have_count(1)
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(answers(page)).to_contain_text(["Stopped."])


async def test_a_failure_says_what_to_do(chat: ChatDesk) -> None:
    """The error in words, with advice, a way to look into it, and one to ask again. A turn whose stream broke is
    replaced by its next attempt, and no failure."""
    page = await chat.open()
    await say(page, "broken thing")
    problem = page.locator(".entry .problem")
    await expect(problem).to_contain_text("the model does not take images")
    await expect(problem).to_contain_text("Ask in another way.")
    link = problem.get_by_role("link", name="Look into it")
    await expect(link).to_have_attribute("href", re.compile("^/dashboard#/tasks/"))
    first = await page.locator(".entry").get_attribute("data-entry")
    await problem.get_by_role("button", name="Retry").click()
    await expect(page.locator(f".entry:not([data-entry={first}]) .problem")).to_contain_text("does not take images")
    await expect(page.locator(".entry")).to_have_count(1)

    await say(page, "stumble on")
    await expect(answers(page).last).to_contain_text("It had to start over once.")
    await expect(answers(page).last.locator(".md")).to_have_text("a whole sentence")


async def test_two_conversations_at_once(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """One runs on while another is held; the list says so, and when it ends; the back button leads to it."""
    key = chat_stage.new_key()
    page = await chat.open(key=key)
    await say(page, "slow one")
    seen = await words(page, beyond=2)
    await page.get_by_role("link", name="New conversation").click()
    await say(page, "hello there")
    await expect(answers(page)).to_contain_text(["You said: hello there"])
    await ended(page)
    await expect(rows(page)).to_have_count(2)
    slow = rows(page).filter(has_text="slow one")
    await expect(slow).to_contain_text("answering")
    await expect(rows(page).filter(has_text="hello there")).not_to_contain_text("answering")
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    await page.go_back()
    await expect(page.get_by_role("heading", level=1)).to_have_text("slow one")
    await words(page, beyond=seen + 2)
    await page.get_by_role("link", name=re.compile("^hello there")).click()
    await expect(answers(page)).to_contain_text(["You said: hello there"])
    session, conversation = str(await slow.get_by_role("link").get_attribute("href")).rsplit("/", 2)[1:]
    async with chat_stage.server.client(key) as client:
        await client.post(f"/v1/sessions/{session}/conversations/{conversation}/stop")
    await expect(slow).not_to_contain_text("answering")


async def test_coming_back_in_the_middle_of_an_answer(chat: ChatDesk, chat_stage: ChatStage) -> None:
    """A reload, and another browser with the same key: both show the answer from its beginning and go on with it; what
    one says, the other hears. A message that was not sent yet is not lost either."""
    key = chat_stage.new_key()
    page = await chat.open(key=key)
    await say(page, "slow story")
    seen = await words(page, beyond=2)
    await message_box(page).fill("a draft")
    await page.reload()
    seen = await words(page, beyond=seen)
    await expect(page.locator("details.thinking")).to_have_count(1)
    await expect(message_box(page)).to_have_value("a draft")

    other = await chat.open(page.url.partition("#/")[2], key=key)
    await words(other, beyond=seen)
    await expect(rows(other)).to_contain_text(["slow story"])
    await other.get_by_role("button", name="Stop", exact=True).click()
    for each in (page, other):
        await expect(answers(each)).to_contain_text(["Stopped."])
    await say(other, "hello from here")
    await expect(page.locator(".asked-text").last).to_have_text("hello from here")
    await expect(answers(page).last).to_contain_text("You said: hello from here")


async def test_conversations_are_renamed_and_deleted(chat: ChatDesk) -> None:
    """A title of one's own; deleting asks before, and tells others who have the conversation open."""
    key = chat.stage.new_key()
    page = await chat.open(key=key)
    await say(page, "first words")
    await ended(page)
    other = await chat.open(page.url.partition("#/")[2], key=key, expected=("404",))
    await ended(other)
    await page.get_by_role("button", name="Rename “first words”").click()
    await page.get_by_role("textbox", name="Title").fill("My title")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("My title")
    await expect(rows(page)).to_contain_text(["My title"])
    await expect(other.get_by_role("heading", level=1)).to_have_text("My title")
    await page.get_by_role("button", name="Delete “My title”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await expect(rows(page)).to_have_count(1)
    await page.get_by_role("button", name="Delete “My title”").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(rows(page)).to_have_count(0)
    await expect(page.get_by_role("heading", level=1)).to_have_text("New conversation")
    await expect(other.get_by_role("alert")).to_contain_text(re.compile("deleted|not there any more"))


async def test_answers_are_text_that_does_nothing(chat: ChatDesk) -> None:
    """Markdown is drawn, markup in it is not; links open elsewhere; code can be copied."""
    page = await chat.open()
    await say(page, "markdown <b>please</b>")
    await ended(page)
    answer = answers(page).locator(".md")
    await expect(page.locator(".asked-text")).to_have_text("markdown <b>please</b>")
    await expect(answer.get_by_role("heading").first).to_have_text("A report")
    await expect(answer.locator("pre").last).to_have_text("never closed")
    assert await page.locator("main img, main script").count() == 0
    assert "hacked" not in await page.title()
    links = answer.locator("a")
    await expect(links).to_have_count(2)
    for link in await links.all():
        assert await link.get_attribute("rel") == "noopener noreferrer"
        assert await link.get_attribute("target") == "_blank"
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await answer.get_by_role("button", name="Copy python code").click()
    await expect(answer.get_by_role("button", name="Copy python code")).to_have_text("Copied")
    assert await page.evaluate("() => navigator.clipboard.readText()") == 'print("hello <b>world</b>")'
    await page.get_by_role("button", name="Copy", exact=True).click()
    assert (await page.evaluate("() => navigator.clipboard.readText()")).startswith("# A report")


async def test_the_end_is_followed_only_by_those_who_are_there(chat: ChatDesk) -> None:
    """Who has scrolled up stays there while the answer grows; one button leads back."""
    page = await chat.open(is_phone=True)
    await say(page, "markdown")
    await ended(page)
    await say(page, "slow one")
    await words(page, beyond=2)
    box = page.locator(".thread")
    jump = page.get_by_role("button", name="Jump to latest")
    await expect(jump).to_be_hidden()
    await box.hover()
    await page.mouse.wheel(0, -3000)
    await expect(jump).to_be_visible()
    await page.wait_for_function("() => document.querySelector('.thread').scrollTop === 0")
    await words(page, beyond=await words(page) + 3)
    assert await box.evaluate("(box) => box.scrollTop") == 0
    await jump.click()
    await expect(jump).to_be_hidden()
    await page.wait_for_function(
        "() => { const box = document.querySelector('.thread');"
        " return box.scrollHeight - box.scrollTop - box.clientHeight < 40; }"
    )
    await page.get_by_role("button", name="Stop", exact=True).click()
    await expect(answers(page).last).to_contain_text("Stopped.")
