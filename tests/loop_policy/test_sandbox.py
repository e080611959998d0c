"""`sandbox`: long results are kept apart, and read on demand."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from queue_backends import ChunkType, open_backend
from tests.loop_policy.harness import Ground, WholeRun, call, done
from worker.client import Handle
from worker.journal import Sandboxed
from worker.loop_policy import SandboxPolicy
from worker.loop_policy.sandbox import Sandbox
from worker.tools.interfaces import OutputNotKept
from worker.tools.outputs import OutputStore

SANDBOX = {"sandbox": {"thresholdBytes": 300, "previewBytes": 20}}
LONG = "about a: " + "x" * 5000


async def test_a_long_result_is_a_digest(ground: Ground) -> None:
    """With its size and its beginning; a short one is shown as it is. All of it can be read, in parts."""
    ground.plan.does(
        [call("1", "look", topic="a", depth=5000), call("2", "look", topic="b")],
        [call("3", "sandbox_recall", id="result-1")],
        [call("4", "sandbox_recall", id="result-1", offset=5000, length=4)],
    )
    await ground.run(SANDBOX)
    first, *rest = ground.content("1").splitlines()
    assert first == "[sandboxed: result-1]"
    assert rest[:2] == ["tool: look", "size: 5,009 bytes, about 1,252 tokens"]
    assert rest[2] == "beginning: about a: xxxxxxxxxxx"
    assert ground.content("2") == "about b: x"
    assert ground.content("3") == f"{LONG}\n[characters 0 to 5009 of 5009]"
    assert ground.content("4") == "xxxx\n[characters 5000 to 5004 of 5009; go on with offset 5004]"


async def test_the_tool_is_there_with_the_policy_alone(ground: Ground) -> None:
    """A model is told of nothing that it cannot use."""
    await ground.run(SANDBOX)
    await ground.run({"dedup": True})
    told = [{tool.name for tool in request.tools} for request in ground.plan.asked]
    assert ["sandbox_recall" in names for names in told] == [True, False]


async def test_what_is_not_there_cannot_be_recalled(ground: Ground) -> None:
    """An id that no digest has, and an offset behind the end."""
    ground.plan.does(
        [call("1", "look", topic="a", depth=5000)],
        [call("2", "sandbox_recall", id="result-9"), call("3", "sandbox_recall", id="result-1", offset=9999)],
        [call("4", "sandbox_recall", id="../other")],
    )
    await ground.run(SANDBOX)
    assert [ground.plan.heard[number].is_error for number in "234"] == [True] * 3
    assert "no 'result-9' in this task" in ground.content("2")
    assert "offset 9999 is beyond the 5009" in ground.content("3")


async def test_preview_is_cut_between_characters(ground: Ground) -> None:
    """Half of one cannot be shown."""
    ground.plan.does([call("1", "look", topic="äöü" * 10, depth=5000)])
    await ground.run(SANDBOX)
    assert "beginning: about äöüäöüä\n" in ground.content("1")


async def test_consumers_hear_where_the_whole_is(ground: Ground) -> None:
    """As of all long outputs that are kept."""
    ground.plan.does([call("1", "look", topic="a", depth=5000)])
    async with ground.worker(SANDBOX) as (backend, _):
        result = await done(backend, "go")
        chunks = [chunk async for chunk in Handle(backend, result.task_id)]
    [told] = [chunk for chunk in chunks if chunk.type is ChunkType.TOOL_RESULT]
    assert (told.metadata["stored"], told.metadata["chars"]) == ("output:1", 5009)
    assert told.content.startswith("[sandboxed: result-1]")


async def test_where_there_is_no_room_results_are_shown(ground: Ground) -> None:
    """The run goes on, and the log says why."""
    ground.plan.does([call("1", "look", topic="a", depth=5000)], [call("2", "look", topic="b", depth=5000)])
    policy = {"sandbox": {"thresholdBytes": 300, "maxTotalBytes": 6000}}
    with capture_logs() as logs:
        await ground.run(policy)
    assert ground.content("1").startswith("[sandboxed: result-1]")
    assert ground.content("2").startswith("about b: xxx")
    [told] = [entry for entry in logs if entry.get("part") == "sandbox"]
    assert "no room" in told["reason"]


async def test_where_nothing_is_stored_results_are_shown(ground: Ground) -> None:
    """A worker that keeps no outputs has no sandbox."""
    ground.plan.does([call("1", "look", topic="a", depth=5000)])
    with capture_logs() as logs:
        await ground.run(SANDBOX, max_stored_output_chars=0)
    assert ground.content("1") == LONG
    assert any("not kept apart" in entry["event"] for entry in logs)


async def test_results_of_a_provider_that_runs_whole_tasks(ground: Ground) -> None:
    """The same."""
    ground.plan.does([call("1", "look", topic="a", depth=5000), call("2", "sandbox_recall", id="result-1", length=5)])
    await ground.run(SANDBOX, **{"agent.provider": WholeRun.name})
    assert ground.content("1").startswith("[sandboxed: result-1]")
    assert ground.content("2").startswith("about\n")


async def test_a_call_that_is_made_again_after_a_crash_counts_once() -> None:
    """Its result has the number that it had, and takes no second place."""
    noted: list[tuple[int, str, int]] = []
    store = OutputStore((await open_backend("memory://")).state, keep_s=60.0, max_chars=10_000)
    sandbox = Sandbox(
        SandboxPolicy(threshold_bytes=10, max_total_bytes=200),
        store.of("task"),
        most_chars=10_000,
        earlier={
            1: Sandboxed(number=1, call_id="a", size_bytes=100),
            2: Sandboxed(number=2, call_id="b", size_bytes=50),
        },
        note=lambda *entry: noted.append(entry),
    )
    for call_id in ("b", "c"):
        await sandbox.digest(call(call_id, "look"), "x" * 50)
    assert noted == [(2, "b", 50), (3, "c", 50)]
    with pytest.raises(OutputNotKept, match="no room"):
        await sandbox.digest(call("d", "look"), "x" * 50)
    assert [sandbox.call_id(name) for name in ("result-2", "3", "result-4", "b")] == ["b", "c", None, None]
