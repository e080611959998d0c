"""The approvals view, in a real browser: what runs ask is shown whole and safely, and answered with mouse and keys."""

from __future__ import annotations

import re
import time

import pytest
from playwright.async_api import expect

from tests.browser.chromium import WITHIN_MS, violations
from tests.browser.desk import Desk, settled
from tests.browser.run_plans import magazine, start
from tests.browser.stage import Stage, in_thread
from worker.approvals import Approval
from worker.gateway.caller import Scope

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)

HOSTILE = "<img src=x onerror=\"document.title='taken'\">\u202eredro"


async def put(stage: Stage, key: str, **fields: object) -> Approval:
    """Put a question."""
    question = Approval(**{"what": "tool", "message": key, "tool": "wipe", **fields})  # type: ignore[arg-type]  # fields of all types
    return await in_thread(stage.do, lambda gateway: gateway.approvals.store.open(question, key=f"{key}{time.time()}"))


async def test_a_question_is_answered_with_the_mouse(desk: Desk, stage: Stage, axe: str) -> None:
    """It comes in by itself, counts in the navigation, shows its arguments as text, and is gone once it is answered;
    who said what stands below."""
    page = await desk.open("approvals")
    await settled(page)
    asked = await put(
        stage, "May ops wipe the disk?", agent="ops", arguments={"path": HOSTILE, "force": True}, tenant="acme"
    )
    card = page.get_by_role("article", name="May ops wipe the disk?")
    await expect(card).to_be_visible()
    await expect(card).to_contain_text(HOSTILE.replace('"', '\\"').replace("\u202e", "\\u202e"))
    await expect(card).to_contain_text(re.compile(r"Time is up.*, then rejected"))
    await expect(card).not_to_contain_text("[object")
    link = page.locator("#nav").get_by_role("link", name=re.compile("Approvals"))
    await expect(link).to_contain_text(re.compile(r"\d"))
    assert await violations(page, axe, ()) == []
    await desk.keep(page, "approvals")
    await card.get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Reject")).to_be_focused()
    await dialog.get_by_label("Why not").fill("not today")
    await desk.keep(page, "approvals-dialog")
    assert await violations(page, axe, ()) == []
    await dialog.get_by_role("button", name="Reject").click()
    await expect(card).to_have_count(0)
    row = page.get_by_role("row", name=re.compile("May ops wipe the disk"))
    await expect(row).to_contain_text("rejected")
    await expect(row).to_contain_text("not today")
    found = await in_thread(stage.do, lambda gateway: gateway.approvals.store.get(asked.id))
    assert (found.decided, found.approved, found.comment) == (True, False, "not today")
    assert "Shoal" in await page.title()


async def test_a_question_is_answered_with_keys(desk: Desk, stage: Stage) -> None:
    """Tab reaches the buttons, Enter opens the question and says yes, Escape leaves it."""
    asked = await put(stage, "May keys do this?")
    page = await desk.open("approvals", is_dark=True)
    button = page.get_by_role("button", name="Approve: May keys do this?")
    await button.focus()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("article", name="May keys do this?")).to_have_count(0)
    found = await in_thread(stage.do, lambda gateway: gateway.approvals.store.get(asked.id))
    assert found.approved


async def test_who_was_too_late_is_told(desk: Desk, stage: Stage) -> None:
    """Somebody else has answered while the dialog was open: that is said, with how."""
    asked = await put(stage, "Who is first?")
    page = await desk.open("approvals", expected=("409",))
    await page.get_by_role("button", name="Approve: Who is first?").click()
    await in_thread(stage.do, lambda gateway: gateway.approvals.store.decide(asked.id, approved=False, reviewer="bob"))
    await page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    await expect(page.get_by_text(re.compile("was rejected already by bob")).first).to_be_visible()


async def test_who_may_not_answer_sees_no_buttons(desk: Desk, stage: Stage) -> None:
    """Looking needs `tasks.read`, answering a scope of its own."""
    await put(stage, "Look only?")
    page = await desk.open("approvals", key=stage.server.make_key([Scope.OPS_READ, Scope.TASKS_READ]), is_phone=True)
    card = page.get_by_role("article", name="Look only?")
    await expect(card).to_contain_text("approvals.write")
    await expect(card.get_by_role("button")).to_have_count(0)
    await desk.keep(page, "approvals-phone")


async def test_the_page_of_a_run_shows_what_is_approved_there(desk: Desk, stage: Stage, axe: str) -> None:
    """A call's arguments stand beside the buttons, also where a run's own questions are answered."""
    run_id = await in_thread(start, stage, magazine(delay_s=0.03), topic="moss")
    await put(stage, "May moss wipe?", run=run_id, step="research", arguments={"path": HOSTILE})
    page = await desk.open(f"runs/{run_id}")
    asked = page.get_by_role("group", name="Approval of research")
    await expect(asked).to_contain_text("May moss wipe?")
    await expect(asked.get_by_role("region")).to_contain_text("\\u202eredro")
    assert await violations(page, axe) == []
    await desk.keep(page, "run-tool-approval")
    await asked.get_by_role("button", name="Reject").click()
    await expect(asked).to_have_count(0)
