"""A run that ends with calls for its client, whose worker dies at any of its writes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

import providers
from providers import ToolCall
from queue_backends import ChunkType
from tests.diary_tools import TOOLS
from tests.worker import test_journal as crashes
from tests.worker.test_journal import call, killed_at, settings_for
from worker.client import Handle

CLIENTS = ToolCall(id="call-9", name="theirs", arguments='{"n": 9}')
PLAN: list[tuple[str, tuple[ToolCall, ...]]] = [
    ("let me see", (call(1, "note"),)),
    ("and you", (call(2, "note"), CLIENTS)),
]
MOST_WRITES = 30


@pytest.fixture(autouse=True)
def _planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider of the crash tests, with a plan that ends with the client."""
    monkeypatch.setattr(crashes, "PLAN", PLAN)
    providers.register("planned", crashes.Planned)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_crash_at_any_write_repeats_nothing(tmp_path: Path, when: Literal["before", "after"]) -> None:
    """However it goes, the result has the call, own tools have taken effect once, finished turns are asked once, and
    who continues the conversation has every outcome."""
    for number in range(1, MOST_WRITES):
        crashes.ASKED.clear()
        diary, tools = tmp_path / f"diary-{number}", tmp_path / f"tools_{number}.py"
        tools.write_text(TOOLS.format(diary=str(diary)))
        chosen = settings_for(tools, **{"agent.client_tools": [{"name": "theirs"}]})
        died, asked, result, chunks, backend = await killed_at(number, when, chosen, f"client-{when}-{number}")
        assert result.ok, result.error
        assert (result.stop_reason, [made["id"] for made in result.tool_calls]) == ("tool_use", ["call-9"])
        assert [chunk.type for chunk in chunks if chunk.is_final] == [ChunkType.DONE]
        assert list(chunks[-1].metadata["tool_calls"]) == list(result.tool_calls)
        effects = diary.read_text().split("\n")[:-1] if diary.exists() else []
        assert len(effects) == len(set(effects)) <= 2
        said = await Handle(backend, result.task_id).messages()
        roles = [message["role"] for message in said]
        assert roles == ["assistant", "user", "assistant", "user"]
        await backend.close()
        if not died:
            assert number > 4
            assert asked == 2
            return
    raise AssertionError(f"a run has more than {MOST_WRITES} writes")
