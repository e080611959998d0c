"""The dashboard's main paths, in a real browser, on a real fleet."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.chromium import WITHIN_MS
from tests.browser.desk import VIEWS, Desk, settled
from tests.browser.stage import Stage, in_thread
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from tests.proxies import Proxy
from worker.gateway.caller import Scope

pytestmark = pytest.mark.asyncio(loop_scope="session")
expect.set_options(timeout=WITHIN_MS)


def figure(page: Page, name: str) -> Locator:
    """The value of a labelled figure."""
    return page.locator(".figure", has_text=name).first.locator(".figure-value")


async def test_the_overview_follows_the_fleet(desk: Desk, stage: Stage) -> None:
    """Figures, running tasks and workers change by themselves; all of it says that it is live."""
    page = await desk.open("overview")
    await expect(page.locator("#live")).to_have_text("live")
    await expect(figure(page, "Workers")).not_to_have_text("0")
    report = page.get_by_role("row", name=re.compile("slow: write the market"))
    await expect(report).to_contain_text("globex")
    await expect(report).to_contain_text("2 328")  # tokens, told by its worker while it runs
    await expect(page.locator(".plot", has_text="Queue depth").locator("path.line").first).to_be_attached()

    task_id = await in_thread(stage.submit, "slow: one that begins while somebody watches")
    await expect(page.get_by_role("link", name=task_id)).to_be_visible()
    await in_thread(stage.do, lambda gateway: gateway.backend.queue.cancel([task_id]))
    await expect(page.get_by_role("link", name=task_id)).to_have_count(0)
    await desk.keep(page, "overview")


async def test_a_task_is_watched_and_cancelled(desk: Desk, stage: Stage) -> None:
    """From the list to the task; its thinking, tool call with result, text and timeline come in while it runs; cancel
    asks first, and the end shows."""
    task_id = await in_thread(stage.submit, "slow: to be watched")
    page = await desk.open("tasks")
    await page.get_by_role("link", name=task_id).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Task {task_id}")

    run = page.locator(".transcript")
    await expect(run.get_by_text("one source after the other")).to_be_visible()
    await expect(run.get_by_text("First I look at the sources.")).to_be_visible()
    tool = run.locator("details.tool")
    await tool.locator("summary").click()
    await expect(tool.get_by_text('"market report"')).to_be_visible()
    await expect(tool.get_by_text("3 pages about market report")).to_be_visible()
    await expect(run.get_by_text(re.compile("one word after"))).to_be_visible()
    await expect(tool.get_by_text("3 pages about market report")).to_be_visible()  # still open, whatever came
    timeline = page.get_by_role("region", name="Timeline")
    await expect(timeline.get_by_text("scripted/swift-1").first).to_be_visible()
    await expect(timeline.get_by_text("search").first).to_be_visible()

    await page.get_by_role("button", name="Cancel task").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Cancel", exact=True).click()
    await expect(dialog).to_have_count(0)
    await page.get_by_role("button", name="Cancel task").click()
    await dialog.get_by_role("button", name="Cancel task").click()
    await expect(run.get_by_text("run cancelled")).to_be_visible()
    await expect(page.locator(".facts .badge")).to_have_text("cancelled")
    await expect(page.get_by_role("button", name="Cancel task")).to_have_count(0)
    await desk.keep(page, "task")


async def test_a_failed_task_is_tried_again(desk: Desk, stage: Stage) -> None:
    """Retry brings it back under the same id, and its new stream is shown."""
    task_id = await in_thread(stage.submit, "broken: to be tried again")
    await in_thread(stage.ended, task_id)
    page = await desk.open(f"tasks/{task_id}")
    await expect(page.locator(".transcript").get_by_text("does not take images")).to_be_visible()
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("waits for a worker again")).to_be_visible()
    await expect(page.get_by_role("region", name="Timeline").get_by_text("given up")).to_have_count(2)
    await expect(page.locator(".facts .badge")).to_have_text("failed")


async def test_dead_letters_are_inspected_and_requeued(desk: Desk, stage: Stage) -> None:
    """Found by its error's text, read in a dialog that has its own address, and brought back."""
    task_id = await in_thread(stage.submit, "broken: the one in the drawer", agent="support", tenant="hooli")
    await in_thread(stage.ended, task_id)
    page = await desk.open("dead")
    await page.get_by_label("Filter dead letters").fill("in the drawer")
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(1)
    await page.get_by_role("link", name=task_id).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_text("does not take images")).to_be_visible()
    await expect(dialog.get_by_text("tenant: hooli")).to_be_visible()
    assert "#/dead/" in page.url
    await desk.keep(page, "dead-letter")
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await expect(page.get_by_role("button", name=f"Requeue {task_id}")).to_be_visible()

    await page.get_by_role("checkbox", name=f"Choose {task_id}").check()
    await page.get_by_role("button", name="Requeue 1", exact=True).click()
    await expect(page.get_by_text("1 letter requeued.")).to_be_visible()


async def test_dead_letters_are_purged_after_a_question(desk: Desk, stage: Stage) -> None:
    """What was chosen is deleted, and nothing else."""
    task_id = await in_thread(stage.submit, "broken: to be thrown away")
    await in_thread(stage.ended, task_id)
    page = await desk.open("dead")
    await page.get_by_role("checkbox", name=f"Choose {task_id}").check()
    await page.get_by_role("button", name="Purge 1", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("1 letter deleted.")).to_be_visible()
    await expect(page.get_by_role("link", name=task_id)).to_have_count(0)
    await expect(page.get_by_text("broken: describe image 1.png")).to_be_visible()


async def test_a_worker_is_drained(desk: Desk) -> None:
    """It is asked for by a button that asks first, and is off the list when it has left."""
    page = await desk.open("workers")
    button = page.get_by_role("button", name=re.compile("Drain leaver"))
    await button.click()
    await expect(page.get_by_role("dialog")).to_contain_text("takes no new task")
    await page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()
    await expect(page.get_by_text("was asked to leave")).to_be_visible()
    await expect(page.locator("tbody tr", has_text="leaver")).to_have_count(0)
    await expect(page.locator("tbody tr", has_text="worker-2")).to_have_count(1)


async def test_delivery_is_paused_and_resumed(desk: Desk, stage: Stage) -> None:
    """A paused queue says so on every view that matters; what waits is listed; resuming lets it run."""
    page = await desk.open("queue")
    await page.get_by_role("button", name="Pause delivery").click()
    await page.get_by_role("dialog").get_by_role("button", name="Pause delivery").click()
    await expect(page.locator(".banner")).to_contain_text("The queue is paused.")
    task_id = await in_thread(stage.submit, "Waits until somebody resumes")
    await expect(page.get_by_role("region", name="Waiting tasks").get_by_role("link", name=task_id)).to_be_visible()
    await desk.keep(page, "paused")
    await page.get_by_role("button", name="Resume delivery").click()
    await expect(page.locator(".banner")).to_have_count(0)
    assert await in_thread(stage.ended, task_id) == "Done: Waits until somebody resumes"


async def test_usage_by_model_and_by_tenant(desk: Desk) -> None:
    """Choices are addresses: they can be linked, and the back button takes them back. The plot is read by keys, and
    its values stand in a table."""
    page = await desk.open("usage?period=7d&by=model&measure=tokens")
    table = page.get_by_role("region", name="Usage by model")
    await expect(table.get_by_text("scripted/deep-2")).to_be_visible()
    plot = page.locator(".plot")
    await expect(plot.locator("rect.bar").first).to_be_attached()

    await plot.locator(".plot-area").focus()
    await page.keyboard.press("End")
    await expect(plot.locator(".plot-tip")).to_contain_text("scripted/swift-1")
    await plot.get_by_text("Values as a table").click()
    await expect(plot.locator("tbody tr")).to_have_count(7)

    await page.get_by_role("link", name="Tenant").click()
    await expect(page.get_by_role("region", name="Usage by tenant").get_by_text("globex")).to_be_visible()
    await expect(plot.locator(".legend")).to_contain_text("globex")
    await expect(plot.locator(".legend")).not_to_contain_text("swift-1")
    assert "by=tenant" in page.url
    await page.go_back()
    await expect(table.get_by_text("scripted/deep-2")).to_be_visible()
    await desk.keep(page, "usage")


async def test_budgets_and_providers_tell_how_things_stand(desk: Desk) -> None:
    """Bars with soft and hard marks; a provider in use is checked without being asked; limits show their use."""
    page = await desk.open("budgets")
    acme = page.locator("tr", has_text="acme")
    await expect(acme.get_by_role("meter")).to_have_attribute("aria-valuenow", re.compile(r"[1-9]\d*"))
    await expect(acme.locator(".meter-mark")).to_have_count(2)
    await desk.show(page, "providers")
    await expect(page.get_by_role("region", name="Providers").first.get_by_text("healthy")).to_be_visible()
    await expect(page.get_by_role("region", name="Rate limits").get_by_text("requests/min")).to_be_visible()
    await expect(page.get_by_role("region", name="Routes").get_by_text("deep", exact=True)).to_be_visible()


EVIL = "<img src=x onerror=alert(1)><b>bold</b>"


async def test_text_of_others_stays_text(desk: Desk, stage: Stage) -> None:
    """Markup in a prompt, an answer, an error, or the name of an agent or tenant is shown as it is and becomes no part
    of the page; names that are too long for their place push nothing out of it."""
    task_id = await in_thread(stage.submit, EVIL)
    nobody = await in_thread(stage.submit, f"broken {EVIL}", agent=EVIL, tenant=f"{EVIL}{'x' * 200}")
    await in_thread(stage.ended, task_id)
    await in_thread(stage.ended, nobody)
    page = await desk.open(f"tasks/{task_id}")
    await expect(page.locator(".transcript")).to_contain_text(f"Done: {EVIL}")
    assert await page.locator("main img, main b").count() == 0
    await desk.show(page, "dead")
    row = page.locator("tbody tr", has_text=nobody)
    await expect(row.locator("td", has_text=f"broken {EVIL}")).to_be_visible()
    await expect(row.get_by_text("x" * 200)).to_be_visible()
    assert await page.locator("main img, main b").count() == 0
    assert await row.evaluate("row => Math.max(...[...row.cells].map((cell) => cell.offsetWidth))") < 500
    await row.get_by_role("link", name=nobody).click()
    await expect(page.get_by_role("dialog").locator("pre").last).to_contain_text(EVIL)
    assert await page.locator("dialog img, dialog b").count() == 0


async def test_no_address_leaves_the_page_empty(desk: Desk, stage: Stage) -> None:
    """What is typed wrongly, or is the name of something in the language, is no view: there is always one."""
    page = await desk.open("constructor", expected=("404",))
    await expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    await page.goto("/dashboard#/tasks?state=toString")
    await expect(page.get_by_role("region", name="Running tasks")).to_be_visible()
    await page.goto("/dashboard#/overview?span=constructor")
    await expect(page.get_by_role("link", name="15 min")).to_have_attribute("aria-current", "true")
    await page.goto("/dashboard#/tasks/100%")
    await expect(page.get_by_text("there is no task '100%'").first).to_be_visible()


async def test_without_a_key_the_page_asks_for_one(desk: Desk, stage: Stage) -> None:
    """A wrong key is refused with the reason; the right one opens the page, and a reload keeps it."""
    page = await desk.open("overview", key="", expected=("401",))
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_label("This gateway wants a key")
    await expect(field).to_be_focused()
    await field.fill("sk-shoal-wrong")
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("alert")).to_be_visible()
    await desk.keep(page, "key")
    await field.fill(stage.key)
    await dialog.get_by_role("button", name="Use this key").click()
    await settled(page)
    await page.reload()
    await settled(page)
    await expect(dialog).to_have_count(0)


async def test_who_may_only_look_sees_no_buttons(desk: Desk, stage: Stage) -> None:
    """A key without `ops.write` gets no button that would be refused; one without `ops.read` is told what it needs."""
    reader = stage.server.make_key([Scope.OPS_READ, Scope.TASKS_READ])
    page = await desk.open("workers", key=reader)
    await expect(page.get_by_text("worker-2")).to_be_visible()
    await expect(page.get_by_role("button", name=re.compile("Drain"))).to_have_count(0)
    await desk.show(page, "queue")
    await expect(page.get_by_role("button", name="Pause delivery")).to_have_count(0)
    await desk.show(page, "dead")
    await expect(page.get_by_role("checkbox")).to_have_count(0)

    stranger = await desk.open("overview", key=stage.server.make_key([Scope.TASKS_READ]), expected=("403",))
    await expect(stranger.locator("#live")).to_contain_text("ops.read")


async def test_a_tenants_key_shows_that_tenant_alone(desk: Desk, stage: Stage) -> None:
    """Tasks and usage of others are not there, nor is what touches or shows them: whatever scopes it has."""
    page = await desk.open("tasks", key=stage.server.make_key([*Scope], tenant="globex"))
    await expect(page.get_by_text("slow: write the market report")).to_be_visible()
    await expect(page.get_by_text("slow: read all of the minutes")).to_have_count(0)
    await desk.show(page, "workers")
    await expect(page.get_by_role("button", name=re.compile("Drain"))).to_have_count(0)
    await desk.show(page, "queue")
    await expect(page.get_by_role("button", name="Pause delivery")).to_have_count(0)
    await desk.show(page, "usage?by=tenant")
    table = page.get_by_role("region", name="Usage by tenant")
    await expect(table.get_by_text("globex")).to_be_visible()
    await expect(table.get_by_text("acme")).to_have_count(0)
    await desk.show(page, "overview")
    await expect(page.locator(".plot", has_text="Queue depth")).to_be_hidden()
    await expect(page.locator(".plot", has_text="Cost per hour")).to_be_visible()


async def test_a_lost_connection_shows_and_heals(desk: Desk, stage: Stage) -> None:
    """Cut off, the page says that it reconnects; when the gateway can be reached again it is live by itself."""
    async with Proxy(urlsplit(stage.url).port or 0) as proxy:
        page = await desk.open("overview", url=f"http://127.0.0.1:{proxy.port}", expected=("ERR_",))
        await settled(page)
        await proxy.refuse()
        await expect(page.locator("#live")).to_have_text("reconnecting")
        await page.evaluate("() => { location.hash = '#/tasks?state=failed'; }")
        await expect(page.locator("#main").get_by_text("The gateway does not answer")).to_be_visible()
        await proxy.accept()
        await expect(page.locator("#live")).to_have_text("live")
        await expect(page.get_by_role("link", name=stage.ids["dead"])).to_be_visible()


async def test_what_a_page_missed_at_first_comes_later(desk: Desk, stage: Stage) -> None:
    """Who asks is not known while the gateway is away: when it is back there are buttons and the past."""
    page = await desk.open("start", expected=("ERR_",))
    away = "**/v1/**"
    await page.route(away, lambda route: route.abort())
    await page.goto("/dashboard#/queue")
    await page.reload()
    await expect(page.locator("#live")).to_have_text("reconnecting")
    await page.unroute(away)
    await settled(page)
    await expect(page.get_by_role("button", name="Pause delivery")).to_be_visible()
    await expect(page.locator(".plot path.line").first).to_be_attached()


async def test_a_queue_that_is_away_is_told_on_every_view(desk: Desk, stage: Stage) -> None:
    """Old figures do not look like new ones, wherever one is."""
    page = await desk.open("budgets")
    await settled(page)
    told = "event: queue\ndata: " + json.dumps({"at": 1.0, "dead": 3, "running": 2, "problem": "it went home"}) + "\n\n"
    await page.route("**/v1/ops/events", lambda route: route.fulfill(body=told, content_type="text/event-stream"))
    await page.reload()
    for view in ("budgets", "workers", "tasks", "dead"):
        await page.evaluate("view => { location.hash = `#/${view}`; }", view)
        await expect(page.locator(".banner.bad")).to_contain_text("it went home")


async def test_a_phone_shows_all_of_it(desk: Desk, stage: Stage) -> None:
    """360 pixels are enough for every view: nothing sticks out to the side."""
    page = await desk.open("overview", is_phone=True)
    for view in (*VIEWS, f"tasks/{stage.ids['done']}"):
        await desk.show(page, view)
        width = await page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 360, f"{view} is {width} pixels wide"
        await desk.keep(page, f"phone-{view.split('/')[0]}")


async def test_an_open_gateway_asks_for_nothing(desk: Desk) -> None:
    """On this machine alone, without keys: the page is live at once, and its own requests pass the guard against
    other pages."""
    with GatewayServer(gateway_settings(gateway={"auth": "off"}), with_worker=False) as server:
        page = await desk.open("queue", key="", url=server.url)
        await settled(page)
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await page.get_by_role("button", name="Pause delivery").click()
        await page.get_by_role("dialog").get_by_role("button", name="Pause delivery").click()
        await expect(page.get_by_text("Delivery is paused.")).to_be_visible()
        await desk.show(page, "overview")
        await expect(page.get_by_text("No worker is up.")).to_be_visible()
        await page.goto("about:blank")
