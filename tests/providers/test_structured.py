"""Answers that have to be JSON of a schema: asked for, judged, repaired once, and refused if they still do not fit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import (
    AgentConfig,
    ChatProvider,
    InvalidOutput,
    InvalidRequest,
    LimitReached,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ToolCall,
    ToolOutcome,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.structured import prompted, schema_of, value_of
from providers.tool_loop import FinishedTurn, Resumption, Run, TurnRecord
from providers.tool_loop import run as run_loop
from queue_backends import ChunkType, Task, TokenUsage

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "array", "items": {"type": "number"}}},
    "required": ["city"],
}
GOOD = '{"city": "Lisbon", "days": [21, 22.5]}'
WRONG = '{"city": "Lisbon", "days": [21, "hot"]}'
VALUE = {"city": "Lisbon", "days": [21, 22.5]}
ASKED = "\nRespond with valid JSON matching this schema:\n"


class Speaker(ChatProvider):
    """Gives one answer after the other, and remembers what it was asked."""

    name = "speaker"

    def __init__(self, *answers: str | Message, native: bool = False, stop_reason: StopReason | None = None) -> None:
        self.native_output_schema = native
        self.asked: list[TurnRequest] = []
        self._answers = list(answers)
        self._stop_reason = stop_reason

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """The next answer."""
        self.asked.append(request)
        answer = self._answers.pop(0)
        message = answer if isinstance(answer, Message) else Message.assistant(answer)
        yield TextDelta(message.text)
        usage = TokenUsage(input_tokens=10, output_tokens=5)
        natural = StopReason.TOOL_USE if message.tool_calls else StopReason.END_TURN
        yield TurnEnd(message=message, stop_reason=self._stop_reason or natural, usage=usage, model="m")


class Watcher:
    """An observer that keeps the records."""

    def __init__(self) -> None:
        self.records: list[TurnRecord] = []

    async def before_turn(self, request: TurnRequest, used: TokenUsage) -> None:
        """Not of interest."""

    async def after_turn(self, record: TurnRecord) -> None:
        """Keep it."""
        self.records.append(record)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


async def answered(provider: ChatProvider, *, resumption: Resumption | None = None, **settings: Any) -> Run:
    async def call_tool(call: ToolCall) -> ToolOutcome:
        return ToolOutcome(call_id=call.id, name=call.name, content="sunny")

    async def chunk(kind: ChunkType, content: str, metadata: object = None, /) -> None:
        return

    observer: Any = settings.pop("observer", None)
    config = AgentConfig(model="m", **{"output_schema": SCHEMA, **settings})
    task = Task(id="t", prompt="How is the weather?")
    return await run_loop(provider, config, task, (), call_tool, chunk, observer, resumption=resumption)


async def test_a_good_answer_is_the_value() -> None:
    """One call; the output is the model's own text."""
    provider = Speaker(GOOD)
    run = await answered(provider)
    assert (run.structured, run.output, run.turns) == (VALUE, GOOD, 1)


@pytest.mark.parametrize(
    "answer", [f"Here you are:\n```json\n{GOOD}\n```\nEnjoy.", f"```\nno JSON\n```\n```\n{GOOD}\n```", f"\n {GOOD} \n"]
)
async def test_a_fenced_block_will_do(answer: str) -> None:
    """Models like to wrap what they are asked for."""
    assert (await answered(Speaker(answer))).structured == VALUE


async def test_the_prompt_asks_where_the_vendor_cannot_be_told() -> None:
    """With the schema, after the prompt; the system prompt stays as it is."""
    provider = Speaker(GOOD)
    await answered(provider, system_prompt="Be brief.")
    (request,) = provider.asked
    assert request.messages[0].text.startswith("How is the weather?" + ASKED)
    assert '"required":["city"]' in request.messages[0].text
    assert request.config.system_prompt == "Be brief."
    native = Speaker(GOOD, native=True)
    await answered(native)
    assert native.asked[0].messages == (Message.user("How is the weather?"),)
    ignored = Speaker(GOOD, native=True)
    await answered(ignored, options={"native_schema": False})
    assert ASKED in ignored.asked[0].messages[0].text


async def test_the_prompt_asks_in_every_turn() -> None:
    """A turn after a tool has the same prompt as the one before it: what a vendor keeps of it stays usable."""
    call = Message(role=Role.ASSISTANT, parts=(ToolCall(id="c", name="look", arguments="{}"),))
    provider = Speaker(call, GOOD)
    await answered(provider)
    first, second = provider.asked
    assert second.messages[0] == first.messages[0]
    assert second.messages[2].parts[0] == ToolOutcome(call_id="c", name="look", content="sunny")


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (WRONG, "$.days[1]"),
        ("It is sunny.", "not valid JSON"),
        ("", "empty"),
        ('{"days": []}', '"city" is a required property'),
    ],
)
async def test_a_wrong_answer_is_repaired_once(native: bool, answer: str, problem: str) -> None:
    """The model sees its answer and what is wrong with it, and the second answer is the run's only output."""
    provider, watcher = Speaker(answer, GOOD, native=native), Watcher()
    run = await answered(provider, observer=watcher)
    assert (run.structured, run.output, run.turns) == (VALUE, GOOD, 2)
    assert run.usage == TokenUsage(input_tokens=20, output_tokens=10)
    *_, said, complaint = provider.asked[1].messages
    assert (said.text, complaint.role) == (answer, Role.USER)
    assert problem in complaint.text
    assert complaint.text.count(ASKED) == 1
    assert [record.is_last for record in watcher.records] == [False, True]


async def test_a_second_wrong_answer_ends_the_run() -> None:
    """For good: the error has the path that does not fit, and the usage of both calls."""
    provider, watcher = Speaker("no", WRONG), Watcher()
    with pytest.raises(InvalidOutput, match=r"\$\.days\[1\]: .*\"hot\"") as caught:
        await answered(provider, observer=watcher)
    assert not caught.value.retryable
    assert caught.value.usage == TokenUsage(input_tokens=20, output_tokens=10)
    assert [record.is_last for record in watcher.records] == [False, True]


async def test_a_run_that_is_taken_over_asks_for_no_second_repair() -> None:
    """The wrong answer of an earlier delivery has used up the repair; its model call is not made again."""
    end = TurnEnd(message=Message.assistant("no"), stop_reason=StopReason.END_TURN, usage=TokenUsage())
    resumption = Resumption(turns=(FinishedTurn(attempt=0, end=end),), used=TokenUsage(input_tokens=1))
    provider = Speaker(GOOD)
    run = await answered(provider, resumption=resumption)
    assert (run.structured, run.turns, len(provider.asked)) == (VALUE, 2, 1)
    assert "not valid JSON" in provider.asked[0].messages[-1].text
    with pytest.raises(InvalidOutput):
        await answered(Speaker(WRONG), resumption=resumption)


async def test_a_cut_answer_is_not_repaired() -> None:
    """Asking again would be cut again: the error names the limit."""
    provider = Speaker('{"city": "Lis', stop_reason=StopReason.MAX_TOKENS)
    with pytest.raises(LimitReached, match=r"max_tokens \(77\)"):
        await answered(provider, max_tokens=77)
    assert len(provider.asked) == 1


async def test_no_turn_left_for_a_repair() -> None:
    """`max_turns` counts it."""
    with pytest.raises(LimitReached, match="max_turns"):
        await answered(Speaker("no"), max_turns=1)


async def test_a_schema_that_is_none() -> None:
    """The run ends before anything is paid for; what other documents say is not fetched."""
    provider = Speaker(GOOD)
    for schema in ({"type": "no-such-type"}, {"$ref": "http://127.0.0.1:1/schema.json"}):
        with pytest.raises(InvalidRequest, match="output_schema is no JSON Schema"):
            await answered(provider, output_schema=schema)
    assert provider.asked == []


async def test_without_a_schema_nothing_is_judged() -> None:
    """An agent that promises nothing answers as it likes."""
    provider = Speaker("plain")
    run = await answered(provider, output_schema=None)
    assert (run.structured, run.output) == (None, "plain")
    assert provider.asked[0].messages == (Message.user("How is the weather?"),)


def test_a_schema_is_compiled_once() -> None:
    """Equal schemas share one validator, whoever wrote them."""
    first, second = (AgentConfig(model="m", output_schema=dict(SCHEMA)) for _ in range(2))
    assert schema_of(first) is schema_of(second)


def test_many_problems_are_cut() -> None:
    """A long answer that is all wrong makes a short complaint."""
    schema = schema_of(AgentConfig(model="m", output_schema={"type": "array", "items": {"type": "string"}}))
    assert schema is not None
    problem = schema.judge(str(list(range(1000)))).problem
    assert problem.endswith("; and more")
    assert len(problem) < 500


def test_an_answer_nobody_can_repair() -> None:
    """Of a provider that runs whole tasks: its value, or the error."""
    config = AgentConfig(model="m", output_schema=SCHEMA)
    assert value_of(config, GOOD) == VALUE
    assert value_of(AgentConfig(model="m"), "plain") is None
    with pytest.raises(InvalidOutput, match="days"):
        value_of(config, WRONG)


def test_a_prompt_without_text() -> None:
    """A picture alone is asked about all the same; a conversation that nobody began is left as it is."""
    config = AgentConfig(model="m", output_schema=SCHEMA)
    picture = Message(role=Role.USER, parts=())
    (message,) = prompted(Speaker(), TurnRequest(config=config, messages=(picture,))).messages
    assert isinstance(message.parts[0], TextPart)
    assert message.text.startswith(ASKED.lstrip())
    said = TurnRequest(config=config, messages=(Message.assistant("hi"),))
    assert prompted(Speaker(), said) == said
