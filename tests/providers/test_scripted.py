"""The scripted provider: ark's mock without a script, turns, tools and faults with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from providers import (
    AgentConfig,
    BadResponse,
    ContextTooLong,
    InvalidRequest,
    LiveConfig,
    Message,
    RateLimited,
    Role,
    StopReason,
    StreamBroken,
    TextDelta,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.scripted import ScriptedProvider


def request(
    prompt: str, script: Any = None, *, turn: int = 0, attempt: int = 0, results: tuple[str, ...] = ()
) -> TurnRequest:
    outcomes = tuple(ToolOutcome(call_id="c", name="t", content=text) for text in results)
    messages = (Message.user(prompt), *((Message(role=Role.USER, parts=outcomes),) if outcomes else ()))
    options = {} if script is None else {"script": script}
    return TurnRequest(config=AgentConfig(model="mock", options=options), messages=messages, turn=turn, attempt=attempt)


async def play(wanted: TurnRequest) -> tuple[list[str], TurnEnd]:
    events = [event async for event in ScriptedProvider().stream_turn(wanted)]
    end = events[-1]
    assert isinstance(end, TurnEnd)
    return [event.text for event in events if isinstance(event, TextDelta)], end


async def test_without_a_script_it_is_arks_mock() -> None:
    """The default reply, words and single spaces as deltas, a quarter of the bytes as usage."""
    deltas, end = await play(request("twelve bytes"))
    assert deltas == ["mock", " ", "response"]
    assert end.message.text == "mock response"
    assert (end.usage.input_tokens, end.usage.output_tokens) == (3, 3)


async def test_first_response_found_in_the_prompt_wins() -> None:
    """Responses match anywhere and in any case, in the order in which they stand."""
    _, end = await play(request("The WEATHER in Rome", {"responses": {"weather": "sun", "rome": "wolf"}}))
    assert end.message.text == "sun"


async def test_turns_call_tools_and_quote_their_results() -> None:
    """A scenario walks through its turns, with real tool results in its text."""
    script = {
        "scenarios": [
            {
                "match": "x",
                "turns": [{"tool_calls": [{"name": "t", "arguments": {"a": 1}}]}, {"text": "got {last_result}"}],
            }
        ]
    }
    _, first = await play(request("x", script))
    assert [(call.name, call.arguments) for call in first.message.tool_calls] == [("t", '{"a":1}')]
    assert first.stop_reason is StopReason.TOOL_USE
    _, second = await play(request("x", script, turn=1, results=("one", "two")))
    assert second.message.text == "got two"


async def test_fault_strikes_only_its_attempts() -> None:
    """A stream breaks after some chunks on the first attempt, with the usage so far, and works on the second."""
    script = {
        "scenarios": [
            {"turns": [{"text": "a b c", "fault": {"kind": "stream_broken", "after_chunks": 2, "attempts": 1}}]}
        ]
    }
    seen: list[TurnEvent] = []

    async def play_first_attempt() -> None:
        async for event in ScriptedProvider().stream_turn(request("x", script)):
            seen.append(event)  # noqa: PERF401 - a comprehension would be lost with the exception

    with pytest.raises(StreamBroken) as caught:
        await play_first_attempt()
    assert len(seen) == 2
    assert caught.value.usage is not None
    _, end = await play(request("x", script, attempt=1))
    assert end.message.text == "a b c"


async def test_fault_carries_retry_after() -> None:
    """Faults look like the vendors'."""
    script = {"scenarios": [{"turns": [{"fault": {"kind": "rate_limited", "retry_after_s": 7}}]}]}
    with pytest.raises(RateLimited) as caught:
        await play(request("x", script))
    assert caught.value.retry_after_s == 7


async def test_script_from_a_file(tmp_path: Path) -> None:
    """A path names a YAML file."""
    path = tmp_path / "script.yaml"
    path.write_text("responses: {hi: ho}")
    assert (await play(request("hi", str(path))))[1].message.text == "ho"


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ({"respones": {}}, "respones"),
        ({"scenarios": [{"turns": [{"fault": {"kind": "tired"}}]}]}, "tired"),
        ("/no/such", "/no/such"),
    ],
)
async def test_wrong_script_says_what_is_wrong(script: Any, complaint: str) -> None:
    """A misspelt field, an unknown fault and a missing file are each named."""
    with pytest.raises(InvalidRequest, match=complaint):
        await play(request("x", script))


async def test_a_single_answer_is_the_first_turns() -> None:
    """Its faults strike there, too, and no text is an error."""
    provider = ScriptedProvider()
    assert await provider.complete(config_of({"responses": {"sea": "It is blue: {prompt}"}}), "", "the sea", 0) == (
        "It is blue: the sea"
    )
    with pytest.raises(RateLimited):
        await provider.complete(config_of(script_of(fault={"kind": "rate_limited"})), "", "?", 0)
    with pytest.raises(BadResponse, match="empty response"):
        await provider.complete(config_of(script_of(tool_calls=[{"name": "t"}])), "", "?", 0)


async def test_four_bytes_count_as_a_token() -> None:
    """Also those of the system prompt and of tools' answers."""
    outcome = ToolOutcome(call_id="c", name="t", content="x" * 40)
    messages = (Message.user("y" * 40), Message(role=Role.USER, parts=(outcome,)))
    config = AgentConfig(model="mock", system_prompt="z" * 40)
    assert await ScriptedProvider().count_tokens(config, messages) == 30


async def test_a_script_may_have_a_context_window() -> None:
    """For rehearsals of conversations that do not fit, with the error that says so."""
    script = script_of(fault={"kind": "context_too_long"}) | {"context_window": 4096}
    info = await ScriptedProvider().model_info(config_of(script))
    assert (info.context_window, info.tools, info.images) == (4096, True, False)
    with pytest.raises(ContextTooLong):
        await play(request("?", script))
    assert (await ScriptedProvider().model_info(config_of({"nonsense": 1}))).context_window is None


async def test_a_live_script_is_for_agents_that_name_none(tmp_path: Path) -> None:
    """It is used from the next call on; a script that cannot be read makes the provider unhealthy."""
    path = tmp_path / "script.yaml"
    path.write_text("responses: {'': from the file}")
    provider = ScriptedProvider()
    assert isinstance(provider, LiveConfig)
    assert [param.key for param in provider.describe()] == ["script"]
    await provider.config_updated({"script": str(path)})
    assert await provider.complete(config_of(None), "", "?", 0) == "from the file"
    assert await provider.complete(config_of({"responses": {"": "its own"}}), "", "?", 0) == "its own"
    assert (await provider.health_check(config_of(None))).healthy
    await provider.config_updated({"script": str(tmp_path / "none.yaml")})
    health = await provider.health_check(config_of(None))
    assert (health.healthy, "none.yaml" in health.message) == (False, True)
    with pytest.raises(InvalidRequest, match="no_such_setting"):
        await provider.config_updated({"no_such_setting": "1"})


def config_of(script: Any) -> AgentConfig:
    return AgentConfig(model="mock", options={} if script is None else {"script": script})


def script_of(**turn: Any) -> dict[str, Any]:
    return {"scenarios": [{"turns": [turn]}]}
