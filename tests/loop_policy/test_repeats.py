"""`dedup`: no tool call is made twice in a task."""

from __future__ import annotations

import pytest

from providers import ToolCall
from tests.loop_policy.harness import Ground, WholeRun, call
from worker.loop_policy.fingerprints import fingerprint
from worker.loop_policy.repeats import SKIPPED

DEDUP = {"dedup": True}


def test_a_call_is_recognised_by_name_and_arguments() -> None:
    """In whatever order the model writes them; the digest is ark's."""
    one = ToolCall(id="a", name="look", arguments='{"topic": "x", "depth": 2}')
    other = ToolCall(id="b", name="look", arguments='{"depth":2,"topic":"x"}')
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(ToolCall(id="c", name="looks", arguments=one.arguments))
    assert len(fingerprint(ToolCall(id="d", name="look", arguments="no json"))) == 64


async def test_a_repeated_call_is_skipped(ground: Ground) -> None:
    """The tool is not called, and the model is told; another call of the same tool is made."""
    ground.plan.does([call("1", "look", topic="a")], [call("2", "look", topic="a"), call("3", "look", topic="b")])
    result = await ground.run(DEDUP)
    assert (result.output, ground.effects) == ("done", ["look a", "look b"])
    assert ground.content("2") == SKIPPED
    assert not ground.plan.heard["2"].is_error
    assert ground.content("3").startswith("about b")


async def test_without_a_policy_calls_are_repeated(ground: Ground) -> None:
    """As they always were."""
    ground.plan.does([call("1", "look", topic="a")], [call("2", "look", topic="a")])
    await ground.run()
    assert ground.effects == ["look a", "look a"]


async def test_a_call_that_failed_may_be_made_again(ground: Ground) -> None:
    """It has told the model nothing yet; once it succeeds, it counts."""
    ground.plan.does(*([call(str(number), "stumble", text="a")] for number in range(3)))
    await ground.run(DEDUP)
    assert ground.effects == ["stumble a", "stumble a"]
    assert [ground.plan.heard[str(number)].is_error for number in range(3)] == [True, False, False]
    assert ground.content("2") == SKIPPED


async def test_two_at_the_same_time_are_one(ground: Ground) -> None:
    """Whichever comes first is made."""
    ground.plan.does([call("1", "write", text="a"), call("2", "write", text="a")])
    await ground.run(DEDUP)
    assert ground.effects == ["write a"]
    assert sorted([ground.content("1"), ground.content("2")]) == [SKIPPED, "written: a"]


async def test_of_two_at_the_same_time_the_second_is_made_if_the_first_fails(ground: Ground) -> None:
    """Skipping it would leave the model with nothing."""
    ground.plan.does([call("1", "stumble", text="a"), call("2", "stumble", text="a")])
    await ground.run(DEDUP)
    assert sorted([ground.plan.heard["1"].is_error, ground.plan.heard["2"].is_error]) == [False, True]
    assert ground.effects == ["stumble a", "stumble a"]


async def test_what_shoal_brings_itself_is_never_skipped(ground: Ground) -> None:
    """Whoever submits a task twice wants two; what they answer changes."""
    ground.plan.does([call("1", "submit_subtask", prompt="more")], [call("2", "submit_subtask", prompt="more")])
    await ground.run(DEDUP)
    assert all(ground.content(number).startswith("subtask submitted") for number in "12")


async def test_calls_of_a_provider_that_runs_whole_tasks(ground: Ground) -> None:
    """Its calls come the same way."""
    ground.plan.does([call("1", "look", topic="a"), call("2", "look", topic="a")])
    await ground.run(DEDUP, **{"agent.provider": WholeRun.name})
    assert (ground.effects, ground.content("2")) == (["look a"], SKIPPED)


@pytest.mark.parametrize("arguments", ['{"a":"\ud800"}', '{"a":' * 900 + "1" + "}" * 900, "no JSON"])
def test_a_call_that_no_json_can_hold_is_recognised_too(arguments: str) -> None:
    """A model may write anything."""
    again = ToolCall(id="2", name="look", arguments=arguments)
    assert fingerprint(ToolCall(id="1", name="look", arguments=arguments)) == fingerprint(again)
