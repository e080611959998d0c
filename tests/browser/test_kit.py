"""The kit that pages are made of, in the browser that runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chromium import opened
from tests.browser.stage import Stage

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def blank(browser: Browser, stage: Stage) -> AsyncIterator[Page]:
    """The start page, where modules can be loaded."""
    async with AsyncExitStack() as stack:
        page, complaints = await stack.enter_async_context(opened(browser, stage.url))
        await page.goto("/")
        yield page
        complaints.check()


async def run(page: Page, module: str, body: str) -> Any:
    """What a function body returns that has the module as `kit`."""
    return await page.evaluate(f"async () => {{ const kit = await import('/pages/kit/{module}.js'); {body} }}")


async def test_events_are_read_wherever_the_text_is_cut(blank: Page) -> None:
    """Every cut of a stream gives the same events: fields over several lines, heartbeats, all three line ends."""
    text = (
        'retry: 1000\n\nid: 4\nevent: queue\ndata: {"a":\ndata: 1}\n\n: still here\n\n'
        "data: plain\r\n\r\nid: 5\rdata: [2]\r\r: x"
    )
    events = await run(
        blank,
        "sse",
        f"""
        const text = {text!r};
        const read = (parts) => {{
          const parser = new kit.EventParser({{id: ""}});
          return JSON.stringify(parts.flatMap((part) => [...parser.feed(part)]));
        }};
        const whole = read([text]);
        const others = new Set();
        for (let at = 0; at <= text.length; at += 1) others.add(read([text.slice(0, at), text.slice(at)]));
        return [JSON.parse(whole), [...others].filter((one) => one !== whole)];
        """,
    )
    assert events[0] == [
        {"event": "queue", "data": {"a": 1}, "id": "4"},
        {"event": "message", "data": "plain", "id": "4"},
        {"event": "message", "data": [2], "id": "5"},
    ]
    assert events[1] == []


async def test_a_turn_that_starts_over_shows_only_its_last_attempt(blank: Page) -> None:
    """Chunks of a higher attempt replace the turn's earlier ones; what was seen is not taken twice; results find their
    calls."""
    turns = await run(
        blank,
        "transcript",
        """
        const transcript = new kit.Transcript();
        const chunks = [
          {seq: 0, type: "CONTENT", content: "half an ans"},
          {seq: 1, type: "CONTENT", content: "the whole ", attempt: 1},
          {seq: 2, type: "CONTENT", content: "answer", attempt: 1},
          {seq: 2, type: "CONTENT", content: "answer", attempt: 1},
          {seq: 3, type: "TOOL_CALL", content: "add", attempt: 1, metadata: {id: "a", name: "add", arguments: {n: 1}}},
          {seq: 4, type: "TOOL_CALL", content: "add", attempt: 1, metadata: {id: "b", name: "add"}},
          {seq: 5, type: "TOOL_RESULT", content: "two", attempt: 1, metadata: {id: "b", name: "add", is_error: true}},
          {seq: 6, type: "TOOL_RESULT", content: "one", attempt: 1, metadata: {id: "a", name: "add"}},
          {seq: 7, type: "DONE", turn: 1, is_final: true},
        ];
        for (const chunk of chunks) transcript.add(chunk);
        return [[...transcript.turns.values()], transcript.final];
        """,
    )
    ((turn,), final) = turns
    assert turn["restarts"] == 1
    assert [block.get("text", block.get("result")) for block in turn["blocks"]] == ["the whole answer", "one", "two"]
    assert [block.get("isError") for block in turn["blocks"][1:]] == [False, True]
    assert final["isError"] is False


async def test_patching_keeps_what_is_the_same(blank: Page) -> None:
    """Rows are matched by their key, so that focus and open details stay with them; text is never parsed."""
    kept = await run(
        blank,
        "dom",
        """
        const {h, patch} = kit;
        const root = document.body.appendChild(h("div"));
        const details = (name) => h("details", {}, h("summary", {}, name));
        const row = (name) => h("div", {"data-key": name}, h("button", {}, name), details(name));
        const draw = (names) => patch(root, names.map(row));
        draw(["a", "b", "<b>c</b>"]);
        const [, b] = root.children;
        b.querySelector("button").focus();
        b.querySelector("details").open = true;
        draw(["<b>c</b>", "new", "b"]);
        const found = {
          order: [...root.children].map((row) => row.querySelector("button").textContent),
          isSame: root.children[2] === b,
          isOpen: b.querySelector("details").open,
          markup: root.querySelectorAll("b").length,
        };
        root.remove();
        return found;
        """,
    )
    assert kept == {"order": ["<b>c</b>", "new", "b"], "isSame": True, "isOpen": True, "markup": 0}


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("duration(0.0123)", "12 ms"),
        ("duration(3725)", "1 h 2 min"),
        ("count(1234567)", "1 234 567"),
        ("short(12345)", "12.3k"),
        ("short(999.96)", "1k"),
        ("usd(0.00012)", "$0.00012"),
        ("usd(0.042)", "$0.042"),
        ("usd(1234.5)", "$1 234.50"),
        ("usd(null)", "?"),
        ("plural(1, 'task')", "1 task"),
    ],
)
async def test_figures_are_written_for_people(blank: Page, call: str, text: str) -> None:
    """Units, thousands apart, no more digits than help; what is not known is no zero."""
    assert (await run(blank, "format", f"return kit.{call};")).replace("\u2009", " ").replace("\xa0", " ") == text


async def test_axes_have_round_steps(blank: Page) -> None:
    """From zero to at least the highest value, in steps that people count in; whole ones for things that are whole."""
    assert await run(blank, "scale", "return kit.valueTicks(7.3);") == [0, 2, 4, 6, 8]
    assert await run(blank, "scale", "return kit.valueTicks(2, 4, {whole: true});") == [0, 1, 2]
    ticks = await run(blank, "scale", "return kit.timeTicks(1000, 4600, 4);")
    assert ticks["step"] == 900
    assert all(at % 900 == 0 for at in ticks["ticks"])


async def test_the_focus_stays_where_a_row_was(blank: Page) -> None:
    """An element that goes with the focus on it leaves it to what it stood in, not to the page's beginning."""
    found = await run(
        blank,
        "dom",
        """
        const {h, patch} = kit;
        const region = document.body.appendChild(h("div", {tabindex: "0", id: "region"}));
        const row = (name) => h("div", {"data-key": name}, h("button", {}, name));
        const list = region.appendChild(h("div"));
        patch(list, ["a", "b"].map(row));
        list.firstChild.firstChild.focus();
        patch(list, ["b"].map(row));
        const first = document.activeElement.id;
        list.firstChild.firstChild.focus();
        patch(list, ["b", "c"].map(row));
        const second = document.activeElement.textContent;
        region.remove();
        return [first, second];
        """,
    )
    assert found == ["region", "b"]


async def test_one_click_is_one_request(blank: Page) -> None:
    """While what a button started is under way, another click on it does nothing; a click on another one does."""
    calls = await run(
        blank,
        "dom",
        """
        const root = document.body.appendChild(kit.h("div", {}, ["a", "b"].map((id) =>
          kit.h("button", {"data-action": "act", "data-id": id}, id))));
        const calls = [];
        let finish;
        kit.actions(root, {act: (button) => {
          calls.push(button.dataset.id);
          return new Promise((resolve) => { finish = resolve; });
        }});
        const [a, b] = root.children;
        a.click(); a.click(); b.click();
        finish(); await new Promise((resolve) => setTimeout(resolve));
        b.click();
        root.remove();
        return calls;
        """,
    )
    assert calls == ["a", "b", "b"]


async def test_an_error_is_said_once_and_few_stay(blank: Page) -> None:
    """What fails again and again does not fill the page."""
    texts = await run(
        blank,
        "notice",
        """
        for (const text of ["away", "away", "1", "2", "3", "away", "4"]) kit.failed(text);
        const texts = [...document.querySelectorAll(".notice span")].map((one) => one.textContent);
        document.querySelector(".notices").remove();
        return texts;
        """,
    )
    assert texts == ["1", "2", "3", "4"]


async def test_samples_that_were_missed_are_fetched(blank: Page) -> None:
    """A page that was in the background, or without its gateway, asks for the past again, and keeps what a gateway that
    began anew has forgotten."""
    columns = [
        *("ready", "running", "delayed", "dead", "oldest_ready_age_s", "workers", "slots"),
        *("tasks_per_minute", "tokens_per_minute", "cost_usd_per_hour"),
    ]
    found = await blank.evaluate(
        """async (columns) => {
          const { History } = await import("/pages/dashboard/history.js");
          const answers = [[100, 102, 104], [120, 122, 124], [130]];
          const sample = (at) => ({at, ...Object.fromEntries(columns.map((name) => [name, at]))});
          const real = window.fetch;
          let asked = 0;
          window.fetch = async () => {
            const at = answers[asked++];
            const series = {every_s: 2, at, ...Object.fromEntries(columns.map((name) => [name, [...at]]))};
            return new Response(JSON.stringify(series), {status: 200});
          };
          try {
            const history = new History("15m");
            let drawn = 0;
            await history.load();
            const draw = () => { drawn += 1; };
            for (const at of [106, 106.5, 126]) await history.follow(sample(at), draw);
            const kept = history.series.at;
            await history.follow(sample(2000), draw);
            return {asked, drawn, kept, at: history.series.at, ready: history.series.ready};
          } finally { window.fetch = real; }
        }""",
        columns,
    )
    assert found["kept"] == [100, 102, 104, 106, 120, 122, 124, 126]
    assert (found["asked"], found["drawn"]) == (3, 3)
    assert found["at"] == found["ready"] == [2000], "what is older than the span goes"


async def test_a_gap_in_the_samples_is_a_gap_in_the_line(blank: Page) -> None:
    """A missing value and a long silence each end a run; a point alone is a dash."""
    path = await run(
        blank,
        "paths",
        "return kit.linePath(kit.runsOf([0, 1, 2, 3, 20], [5, 6, null, 7, 8], (x, y) => [x, y], 10));",
    )
    assert path == "M0.0 5.0L1.0 6.0M3.0 7.0h1.5M4.0 8.0h1.5"
