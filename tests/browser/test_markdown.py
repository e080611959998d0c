"""Markdown in the browser: what is drawn, what is never drawn, and how it grows."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import opened

pytestmark = pytest.mark.asyncio(loop_scope="session")

DRAW = """
const box = document.createElement("div");
const view = new kit.MarkdownView();
box.append(view.element);
document.body.append(box);
const drawn = async () => { while (!view.isDrawn) await new Promise((go) => setTimeout(go, 5)); };
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def blank(browser: Browser, chat_stage: ChatStage) -> AsyncIterator[Page]:
    """The start page, where modules can be loaded."""
    async with AsyncExitStack() as stack:
        page, complaints = await stack.enter_async_context(opened(browser, chat_stage.url))
        await page.goto("/")
        yield page
        complaints.check()


async def run(page: Page, body: str, *, module: str = "markdown/view") -> Any:
    """What a function body returns that has the module as `kit`, and a view to draw with."""
    draw = DRAW if module == "markdown/view" else ""
    return await page.evaluate(f"async () => {{ const kit = await import('/pages/kit/{module}.js'); {draw} {body} }}")


def _drawn(text: str) -> str:
    return f"view.update({json.dumps(text)}); await drawn(); box.remove();"


async def html(page: Page, text: str) -> str:
    """The markup that a text becomes."""
    found: str = await run(
        page, f"view.update({json.dumps(text)}); await drawn(); box.remove(); return view.element.innerHTML;"
    )
    return found


OUT = 'target="_blank" rel="noopener noreferrer"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a **b** *c* _d_ ~~e~~ `f`", "<p>a <strong>b</strong> <em>c</em> <em>d</em> <s>e</s> <code>f</code></p>"),
        ("***both*** **a *b* c**", "<p><em><strong>both</strong></em> <strong>a <em>b</em> c</strong></p>"),
        ("snake_case_name 2*3*4 ** a", "<p>snake_case_name 2<em>3</em>4 ** a</p>"),
        (r"\*no\* &amp; &#65; &nope;", "<p>*no* &amp; A &amp;nope;</p>"),
        ("``a ` b`` `open", "<p><code>a ` b</code> `open</p>"),
        ("one\ntwo<br>three", "<p>one<br>\ntwo<br>three</p>"),
        ("# One\n\n### Three ##\n", '<h3 class="md-1">One</h3><h4 class="md-3">Three</h4>'),
        ("Title\n=====\n\n---\n", '<h3 class="md-1">Title</h3><hr>'),
        ("> a\nb\n>\n> > c", "<blockquote><p>a<br>\nb</p><blockquote><p>c</p></blockquote></blockquote>"),
        ("- a\n- b\n  - c\n\nd", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><p>d</p>"),
        ("3. a\n4. b\n  - c", '<ol start="3"><li>a</li><li>b<ul><li>c</li></ul></li></ol>'),
        ("* a\n\n* b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
        ("1. a\n\n   ```\n   x\n     y\n   ```\n2. b", None),
        ("#hash and C# and 1) no", "<p>#hash and C# and 1) no</p>"),
    ],
)
async def test_what_answers_are_made_of(blank: Page, text: str, expected: str | None) -> None:
    """Emphasis, code, headings, quotes and lists, nested as people and models write them."""
    found = await html(blank, text)
    if expected is not None:
        assert found == expected
    else:
        assert "<code>x\n  y</code>" in found
        assert found.count("<li>") == 2
        assert found.count("<ol") == 1


async def test_code_and_tables(blank: Page) -> None:
    """Code has its language and is left as it is; a fence that is still open is code already. Tables align."""
    code = await html(blank, "```js title\n<b>1</b>\n\n**2**\n")
    assert "<span>js</span>" in code
    assert "<code>&lt;b&gt;1&lt;/b&gt;\n\n**2**\n</code>" in code
    table = await html(blank, "| a | b |\n|---|--:|\n| **1** | x \\| y |\n| 2 |\n\nend")
    assert '<th scope="col">a</th><th class="to-right" scope="col">b</th>' in table
    assert '<td><strong>1</strong></td><td class="to-right">x | y</td>' in table
    assert '<td>2</td><td class="to-right"></td>' in table
    assert table.endswith("<p>end</p>")


async def test_links_lead_to_safe_places_alone(blank: Page) -> None:
    """Web and mail addresses in a new tab without an opener; pictures are links; everything else is text."""
    found = await html(blank, '[a **b**](https://x.example/p_(1) "t") https://y.example/q?a=1. <mailto:z@x.example>')
    assert f'<a href="https://x.example/p_(1)" {OUT} title="https://x.example/p_(1)">a <strong>b</strong></a>' in found
    assert (
        f'<a href="https://y.example/q?a=1" {OUT} title="https://y.example/q?a=1">https://y.example/q?a=1</a>.' in found
    )
    assert f'<a href="mailto:z@x.example" {OUT}' in found
    picture = await html(blank, "![alt](https://x.example/p.png) [![b](https://x.example/b.png)](https://z.example/)")
    assert "<img" not in picture
    assert ">Image: alt</a>" in picture
    assert picture.count("<a ") == 2


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](<java\tscript:alert(1)>)",
        "[x](&#106;avascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](vbscript:x)",
        "[x](file:///etc/passwd)",
        "[x](//evil.example)",
        "[x](/dashboard)",
        "![x](javascript:alert(1))",
        "<javascript:alert(1)>",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='https://x.example' onclick='alert(1)'>x</a>",
        "<svg/onload=alert(1)><iframe src=//evil.example></iframe>",
        "`<b>`\n\n```html\n<script>alert(1)</script>\n```",
        "|<b>|\n|-|\n|<img src=x onerror=alert(1)>|",
        "# <style>*{display:none}</style>",
        '[x](https://x.example/" onmouseover="alert(1))',
    ],
)
async def test_hostile_text_stays_text(blank: Page, text: str) -> None:
    """No element, attribute or address comes out of it that is not the renderer's own."""
    found = await run(
        blank,
        f"""
        {_drawn(text)}
        const all = [...view.element.querySelectorAll("*")];
        const links = all.filter((one) => one.href);
        const attributes = all.flatMap((one) => one.getAttributeNames());
        return [all.map((one) => one.localName), attributes, links.map((one) => one.protocol)];
        """,
    )
    tags, attributes, protocols = found
    assert not set(tags) & {"script", "img", "svg", "iframe", "style", "object", "b", "input", "form"}, tags
    assert not [name for name in attributes if name.startswith("on") or name in ("style", "src", "srcdoc")]
    assert set(protocols) <= {"https:"}


@pytest.mark.parametrize(
    "text",
    [
        '">" .repeat(50000)',
        '"> ".repeat(50000) + "x"',
        '"- ".repeat(50000) + "x"',
        '"*".repeat(100000)',
        '"*a ".repeat(3000) + "b* ".repeat(3000)',
        '"*a **b ".repeat(30000)',
        '"_a*b_c*".repeat(30000)',
        '"[".repeat(200000)',
        '"[a](".repeat(100000)',
        '"![".repeat(100000) + "](x)".repeat(100000)',
        '"`".repeat(500) + "`a``b```c````".repeat(20000)',
        '"<".repeat(200000)',
        '"# " + " ".repeat(200000) + "x"',
        '"|".repeat(100000) + "\\n" + "|-".repeat(50000)',
        '"a\\n".repeat(100000)',
        '"- a\\n".repeat(100000)',
        '"1. a\\n  - b\\n    1. c\\n".repeat(20000)',
        '"http://".repeat(50000)',
        '"&#x".repeat(100000)',
        '"~~~\\n".repeat(10000)',
    ],
)
async def test_no_text_holds_up_the_page(blank: Page, text: str) -> None:
    """Nesting and repetition without end are drawn all the same, to a bounded depth."""
    depth = await run(
        blank,
        f"""
        view.element.hidden = true;
        view.update({text}); await drawn(); box.remove();
        let deepest = 0;
        const walk = (node, depth) => {{
          deepest = Math.max(deepest, depth);
          for (const child of node.children) walk(child, depth + 1);
        }};
        walk(view.element, 0);
        return deepest;
        """,
    )
    assert depth < 60


async def test_a_megabyte_is_drawn_in_slices(blank: Page) -> None:
    """Other things happen on the page while a long answer is drawn; in the end all of it stands."""
    found = await run(
        blank,
        """
        const words = "with some words ".repeat(7);
        const text = Array.from({length: 9000}, (_, number) => `Paragraph **${number}** ${words}`).join("\\n\\n");
        let turns = 0;
        const timer = setInterval(() => { turns += 1; }, 1);
        view.update(text);
        const first = view.element.children.length;
        await drawn();
        clearInterval(timer);
        box.remove();
        const last = view.element.lastElementChild.querySelector("strong").textContent;
        return [text.length > 1e6, first < 9000, turns > 3, view.element.children.length, last];
        """,
    )
    assert found == [True, True, True, 9000, "8999"]


async def test_what_grows_ends_like_what_came_at_once(blank: Page) -> None:
    """Wherever the text was cut meanwhile; blocks that are finished are the same elements to the end."""
    text = (
        "# A\n\nfirst *para*\nmore\n\n1. one\n\n2. two\n   - sub\n\n```py\nx = 1\n\ny\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n\nTitle\n---\n\n- [ ] task\n- [x] done\n\n***\nend `code` [l](https://x.example)"
    )
    found = await run(
        blank,
        f"""
        const text = {json.dumps(text)};
        const whole = new kit.MarkdownView();
        whole.update(text);
        for (let at = 1; at <= text.length; at += 1) {{
          view.update(text.slice(0, at));
          await drawn();
          if (at === 20) view.element.firstElementChild.marked = true;
        }}
        const kept = view.element.firstElementChild.marked === true;
        const grown = view.element.innerHTML;
        view.update("other text");
        await drawn();
        box.remove();
        return [grown === whole.element.innerHTML, kept, view.element.innerHTML, grown];
        """,
    )
    assert found[:3] == [True, True, "<p>other text</p>"], found[3]
