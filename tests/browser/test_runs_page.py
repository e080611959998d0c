"""Runs of teams on the dashboard: watched while they go on, approved, begun by a form, and ended."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from playwright.async_api import expect

from tests.browser.chromium import PHONE, WITHIN_MS, violations
from tests.browser.desk import Desk, settled
from tests.browser.run_plans import MARKUP, magazine, start, store
from tests.browser.stage import Stage, in_thread

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)


async def test_a_run_is_watched_while_it_goes_on(desk: Desk, stage: Stage, axe: str) -> None:
    """Cards change as steps run; a person approves in the page; the chosen step's stream is shown as it comes; prompts
    and outputs can be read, by keys too, and what models write stays text."""
    run_id = await in_thread(start, stage, magazine(delay_s=0.03), topic="tides")
    page = await desk.open(f"runs/{run_id}")
    graph = page.get_by_role("group", name="Graph of the run")
    await expect(graph.locator('[data-node="draft"].is-waiting')).to_be_visible()
    await expect(graph.get_by_role("button", name=re.compile("^research .*Succeeded"))).to_be_visible()
    await desk.keep(page, "run-waiting")
    banner = page.get_by_role("group", name="Approval of draft")
    await expect(banner).to_contain_text("Shall the article be written to this outline?")
    await banner.get_by_role("button", name="Approve").click()

    await graph.locator('[data-node="draft"].is-running').click()
    panel = page.get_by_role("region", name="Step", exact=True)
    await expect(panel.locator(".transcript")).to_contain_text(f"The tide does not wait for {MARKUP}")
    await expect(banner).to_have_count(0)
    await expect(graph.locator('[data-node="draft"]')).to_have_attribute("aria-pressed", "true")
    assert await violations(page, axe) == []
    await desk.keep(page, "run-running")

    await expect(page.locator(".facts .badge").first).to_have_text("Succeeded")
    await expect(graph.locator('[data-node="translation"].is-skipped')).to_be_visible()
    await page.keyboard.press("ArrowUp")
    await expect(graph.locator('[data-node="outline"]')).to_be_focused()
    await page.keyboard.press("Enter")
    await panel.get_by_text("Prompt", exact=True).click()
    await expect(panel.get_by_role("region", name="Prompt of the step")).to_contain_text("Three studies agree")
    await expect(panel.get_by_role("region", name="Output of the step")).to_contain_text("Shorter sentences")
    assert "?step=outline" in page.url
    assert await page.locator("main img, main b").count() == 0

    await page.set_viewport_size(PHONE)  # type: ignore[arg-type] # a TypedDict of theirs
    await page.emulate_media(color_scheme="dark")
    await desk.show(page, f"runs/{run_id}?step=draft")
    await expect(panel.get_by_role("region", name="Output of the step")).to_contain_text(MARKUP)
    assert await page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    assert await violations(page, axe) == []
    await desk.keep(page, "phone-run")


async def test_a_team_is_run_by_its_form_and_ended_by_a_button(desk: Desk, stage: Stage) -> None:
    """The form has the declared inputs and says what is missing; the run's page ends it; the list shows it."""
    await in_thread(store, stage, magazine())
    page = await desk.open("teams", expected=("422",))
    await page.get_by_role("link", name="magazine").click()
    await expect(page.get_by_role("group", name="Graph of team magazine").locator("[data-node]")).to_have_count(6)
    form = page.get_by_role("form", name="Run this team")
    await form.get_by_role("button", name="Run").click()
    await expect(form.get_by_role("alert")).to_have_text("topic is required.")
    await form.get_by_label("topic").fill("the herring")
    await form.get_by_label("translate").check()
    await form.get_by_label("words").fill("many")
    await form.get_by_role("button", name="Run").click()
    await expect(form.get_by_role("alert")).to_contain_text("use a number")
    await form.get_by_label("words").fill("300")
    await desk.keep(page, "team")
    await form.get_by_role("button", name="Run").click()

    await expect(page.get_by_role("heading", level=1)).to_contain_text("Run magazine-")
    await expect(page.get_by_role("region", name="Input")).to_contain_text('"words": 300')
    await page.get_by_role("button", name="Cancel run").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel run").click()
    await expect(page.locator(".facts .badge").first).to_have_text("Cancelled")
    run_id = unquote(page.url.partition("#/runs/")[2].partition("?")[0])
    await desk.show(page, "runs?phase=Cancelled")
    row = page.locator("tbody tr", has_text=run_id)
    await expect(row.get_by_text("Cancelled")).to_be_visible()
    await settled(page)
    is_inside = "(cell) => cell.scrollWidth <= cell.clientWidth"
    assert await row.locator("td > .cell").first.evaluate(is_inside), "a long name runs into the next column"
    await desk.keep(page, "runs")

    reader = await desk.open(f"runs/{run_id}", key=stage.server.make_key(["ops.read", "tasks.read"]))
    await expect(reader.locator(".facts .badge").first).to_have_text("Cancelled")
    await expect(reader.get_by_role("button", name="Cancel run")).to_have_count(0)


async def test_the_list_of_runs_follows_the_feed(desk: Desk, stage: Stage, axe: str) -> None:
    """A run that begins and ends while somebody looks shows by itself: the page asks again because the feed told it of
    a change, for the state of the list that it was told of."""
    page = await desk.open("runs")
    await settled(page)
    dark = await desk.open("runs?phase=active", is_dark=True)
    await settled(dark)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/runs?" in request.url else None)
    run_id = await in_thread(start, stage, magazine(), topic="the feed")
    row = page.locator("tbody tr", has_text=run_id)
    await expect(row).to_contain_text("Waiting")
    await expect(dark.locator("tbody tr", has_text=run_id)).to_contain_text("Waiting")
    assert any("version=" in url for url in asked), asked
    assert await violations(dark, axe) == []
    await desk.keep(dark, "runs-active-dark")
    await in_thread(stage.do, lambda gateway: gateway.runs.cancel(run_id))
    await expect(row).to_contain_text("Cancelled")
    await expect(dark.locator("tbody tr", has_text=run_id)).to_have_count(0)
    await desk.keep(page, "runs-live")
