"""One browser and one fleet for all tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.chat_desk import ChatDesk
from tests.browser.chat_stage import ChatStage
from tests.browser.chromium import chromium_program, launched, screenshots_folder
from tests.browser.desk import Desk
from tests.browser.stage import Stage, in_thread
from tests.npm import npm_file
from tests.servers import Server, fresh_stream


@pytest.fixture(scope="session")
def stage(valkey_server: Server) -> Iterator[Stage]:
    """A fleet with tasks in every state and two weeks of usage. Tests add to it and take nothing away that others
    need."""
    if chromium_program() is None:
        pytest.skip("there is no Chromium or Chrome on PATH")
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage(valkey_server.url(fresh_stream()), Path(folder), names=["leaver"]) as staged,
    ):
        staged.spend()
        staged.ids = staged.play()
        yield staged


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A headless Chromium."""
    program = chromium_program()
    if program is None:
        pytest.skip("there is no Chromium or Chrome on PATH")
    async with launched(program) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def desk(browser: Browser, stage: Stage, tmp_path: Path) -> AsyncIterator[Desk]:
    """Opens pages; at the end of the test each must have been without complaint."""
    async with AsyncExitStack() as pages:
        opener = Desk(browser, stage, pages, screenshots_folder(tmp_path))
        yield opener
        opener.check()
    await in_thread(stage.nobody_watches)  # what a gateway says of streams that end would be in the next test's output


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe, which finds what people with assistive technology stumble over."""
    return npm_file("axe-core", "axe.min.js").read_text()


@pytest.fixture(scope="session")
def chat_stage() -> Iterator[ChatStage]:
    """A gateway with agents to talk to, in memory. Each test has conversations of its own."""
    if chromium_program() is None:
        pytest.skip("there is no Chromium or Chrome on PATH")
    with tempfile.TemporaryDirectory() as folder, ChatStage(Path(folder)) as staged:
        yield staged


@pytest_asyncio.fixture(loop_scope="session")
async def chat(browser: Browser, chat_stage: ChatStage, tmp_path: Path) -> AsyncIterator[ChatDesk]:
    """Opens chat pages; at the end of the test each must have been without complaint."""
    async with AsyncExitStack() as pages:
        opener = ChatDesk(browser, chat_stage, pages, screenshots_folder(tmp_path))
        yield opener
        opener.check()
