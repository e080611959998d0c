"""Plugins that are told to end: cancelled, out of budget, or deaf."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queue_backends import CallOutcome, Task
from tests.agent_plugins.asking import LIMIT_S, answered, ending, text_of
from tests.agent_plugins.conftest import PluginFleet
from tests.agent_plugins.plugin_folders import write_plugin
from worker.agent_plugins import message_run
from worker.usage import UsageReport

ENDLESS = {"scenarios": [{"turns": [{"text": "word " * 2000, "chunk_delay_s": 0.01}]}]}


async def test_cancel_reaches_the_plugin_and_its_model_call(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin in the middle of two model calls, when the task is cancelled, then the plugin is told, both calls
    are closed and accounted as cancelled, and the task ends as any cancelled one does."""
    log = plugins_dir / "log"
    write_plugin(
        plugins_dir,
        f"""
        async def handle_message(self, request, stream):
            try:
                await asyncio.gather(
                    self.services.call_llm("a", stream_to=stream), self.services.call_llm("b", stream_to=stream)
                )
            except asyncio.CancelledError:
                Path({str(log)!r}).write_text("told")
                raise
        """,
    )
    async with plugin_fleet(script=ENDLESS) as fleet:
        handle = await fleet.submit(Task(prompt="go", agent="bot"))
        async with asyncio.timeout(LIMIT_S):
            async for chunk in handle:
                if chunk.content == "word":
                    await handle.cancel()
        result = await handle.result(LIMIT_S)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.error == "run cancelled"
    assert log.read_text() == "told"
    assert {record.outcome for record in records} == {CallOutcome.CANCELLED}
    assert len(records) == 2


async def test_a_plugin_that_does_not_heed_is_left_alone(
    plugins_dir: Path, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a plugin that swallows cancellation, when its task is cancelled, then the task ends all the same, and what
    the plugin still does is refused: it spends nothing any more."""
    monkeypatch.setattr(message_run, "HEED_WITHIN_S", 0.05)
    log = plugins_dir / "log"
    write_plugin(
        plugins_dir,
        f"""
        async def handle_message(self, request, stream):
            await stream.content("busy")
            while True:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    break
            await asyncio.sleep(0.5)
            try:
                await self.services.call_llm("more")
            except asyncio.CancelledError:
                Path({str(log)!r}).write_text("refused")
        """,
    )
    async with plugin_fleet() as fleet:
        handle = await fleet.submit(Task(prompt="go", agent="bot"))
        async with asyncio.timeout(LIMIT_S):
            async for chunk in handle:
                if chunk.content == "busy":
                    await handle.cancel()
            result = await handle.result()
            while not log.exists():  # the plugin goes on by itself
                await asyncio.sleep(0.01)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.error == "run cancelled"
    assert log.read_text() == "refused"
    assert records == []


async def test_a_plugin_that_never_returns_after_done(
    plugins_dir: Path, plugin_fleet: PluginFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a plugin that has answered and goes on, then the answer stands and the task ends."""
    monkeypatch.setattr(message_run, "AFTER_DONE_S", 0.05)
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            await stream.done("said")
            await asyncio.Event().wait()
        """,
    )
    async with plugin_fleet() as fleet:
        result, _ = await answered(fleet)
    assert (result.output, result.error) == ("said", "")


async def test_a_budget_that_is_used_up_stops_the_second_call(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a budget for one call, then the second call of the plugin raises, and the plugin may still answer."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            first = await self.services.call_llm("one")
            try:
                await self.services.call_llm("two")
            except Exception as error:
                await stream.content(f"{first.text} {type(error).__name__}")
        """,
    )
    usage = {"input_tokens": 80, "output_tokens": 30}
    script = {"scenarios": [{"turns": [{"text": "ok", "usage": usage}]}]}
    budgets = {"small": {"scope": "agent", "period": "day", "tokens": 100}}
    async with plugin_fleet(script=script, settings={"budgets": budgets}) as fleet:
        result, _ = await answered(fleet)
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == "ok BudgetExceeded"
    assert len(records) == 1


async def test_a_budget_that_nobody_catches_fails_the_task(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given the same, and a plugin that does not catch it, then the task fails for good and keeps what was shown."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            for word in ("one", "two", "three"):
                await self.services.call_llm(word, stream_to=stream)
        """,
    )
    usage = {"input_tokens": 80, "output_tokens": 30}
    script = {"scenarios": [{"turns": [{"text": "ok", "usage": usage}]}]}
    budgets = {"small": {"scope": "agent", "period": "day", "tokens": 100}}
    async with plugin_fleet(script=script, settings={"budgets": budgets}) as fleet:
        result, chunks = await answered(fleet)
    assert "budget" in result.error
    assert text_of(chunks) == "ok"


async def test_the_runs_token_limit_counts_all_calls(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given `max_run_tokens`, then it is the whole message's: the call that would go beyond it is refused."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            for word in ("one", "two", "three"):
                await self.services.call_llm(word, stream_to=stream)
        """,
    )
    usage = {"input_tokens": 80, "output_tokens": 30}
    script = {"scenarios": [{"turns": [{"text": "ok", "usage": usage}]}]}
    async with plugin_fleet(script=script, agent={"settings": {"max_run_tokens": 200}}) as fleet:
        result, chunks = await answered(fleet)
    assert "has used 220 of max_run_tokens 200" in result.error
    assert text_of(chunks) == "okok"


async def test_leaving_the_events_of_a_call_ends_it(plugins_dir: Path, plugin_fleet: PluginFleet) -> None:
    """Given a plugin that turns away after the first word, then the model's stream is closed, as its record says."""
    write_plugin(
        plugins_dir,
        """
        async def handle_message(self, request, stream):
            async for event in self.services.call_llm("talk"):
                await stream.content(event.text)
                break
        """,
    )
    async with plugin_fleet(script=ENDLESS) as fleet:
        result, _ = await ending(await fleet.submit(Task(prompt="go", agent="bot")))
        records = await UsageReport(fleet.backend.state).recent()
    assert result.output == "word"
    assert [record.outcome for record in records] == [CallOutcome.CANCELLED]
