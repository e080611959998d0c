"""Runs that take part in a conversation: what they begin with, and what is kept of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from providers import Message, Role, StopReason, ToolOutcome, TurnEnd, conversation, register
from providers.interfaces import CallTool, ChunkFn
from providers.messages import AgentConfig, ToolCall, ToolSpec
from providers.tool_loop import FinishedTurn, Resumption
from queue_backends import RUN_CANCELLED, Backend, Chunk, ChunkType, Task, TokenUsage
from tests.sessions.talking import ECHO, WITHIN_S, declare_agent, kept, say, settings_with, talking, texts, until
from worker.agents.model import Agent
from worker.definitions import Definitions
from worker.recall import Past
from worker.sessions.conversation_run import OWN_HISTORY, ConversationRun
from worker.sessions.conversations import Conversations
from worker.sessions.told import Told
from worker.settings import Settings

TOOLS = '''
from worker import tool

@tool(idempotent=True)
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
'''
SCRIPT = {
    "scenarios": [
        {
            "match": "double",
            "turns": [
                {"thinking": "a sum", "text": "wait", "tool_calls": [{"name": "double", "arguments": {"number": 21}}]},
                {"text": "it is {last_result}"},
            ],
        },
        {"match": "endless", "turns": [{"text": "word " * 5000, "chunk_delay_s": 0.01}]},
        {"match": "broken", "turns": [{"text": "a b c", "fault": {"kind": "invalid_request", "after_chunks": 2}}]},
        {
            "match": "flaky",
            "turns": [{"text": "well", "fault": {"kind": "unavailable", "attempts": 1, "message": "away"}}],
        },
        {"turns": [{"text": "echo {prompt}"}]},
    ]
}


class Repeating:
    """A provider that runs whole tasks: it answers with all that it was told."""

    name = "repeating"

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """Calls a tool, then tells what was said before."""
        outcome = await call_tool(ToolCall(id="c1", name="double", arguments='{"number": 4}'))
        before = [message.text for message in conversation(task.history, "") if message.text]
        text = f"{outcome.content} after {before}"
        await chunk_fn(ChunkType.CONTENT, text)
        return text, TokenUsage(input_tokens=1, output_tokens=1)


def with_tools(tmp_path: Path, **changes: object) -> Settings:
    """Settings with the script, and a tool that doubles."""
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return settings_with(SCRIPT, python_tools=(str(path),), **changes)


async def test_what_was_said_is_kept_in_order() -> None:
    """Two runs of one conversation add their questions and answers, one record each; another one stays apart."""
    async with talking(settings_with()) as backend:
        await say(backend, "my name is Ada")
        await say(backend, "who am I?")
        await say(backend, "hello", conversation="c2")
        await say(backend, "hello", tenant="acme")
        exchanges, others = await kept(backend.state), await kept(backend.state, tenant="acme")
    assert [texts(each.messages) for each in exchanges] == [
        ["my name is Ada", "echo my name is Ada"],
        ["who am I?", "echo who am I?"],
    ]
    assert [texts(each.messages) for each in others] == [["hello", "echo hello"]]


async def test_a_run_begins_with_the_conversation_and_then_its_own_history(tmp_path: Path) -> None:
    """The provider is given what was said before, the task's own history after it, and the prompt last."""
    register("repeating", Repeating)
    settings = with_tools(tmp_path)
    agents = {"whole": AgentConfig(model="m", provider="repeating", name="whole")}
    settings = msgspec.structs.replace(settings, agents=agents)
    async with talking(settings) as backend:
        await say(backend, "one")
        own = ({"role": "assistant", "content": "by the way"},)
        result = await say(backend, "two", agent="whole", history=own)
        third = await say(backend, "three", agent="whole")
        exchanges = await kept(backend.state)
    assert result.output == "8 after ['one', 'echo one', 'by the way']"
    assert third.output.startswith("8 after ['one', 'echo one', 'by the way', 'two', ")
    assert texts(exchanges[1].asked) == ["by the way", "two"]
    assert texts(exchanges[1].answered) == ["call:double", "outcome:8", result.output]


async def test_tool_calls_and_reasoning_are_kept(tmp_path: Path) -> None:
    """Each finished turn is kept with its tool calls and their outcomes, in order."""
    async with talking(with_tools(tmp_path)) as backend:
        result = await say(backend, "please double")
        [exchange] = await kept(backend.state)
    assert result.output == "it is 42"
    assert texts(exchange.messages) == ["please double", "a sum+wait+call:double", "outcome:42", "it is 42"]
    assert exchange.error == ""


async def test_a_failed_run_keeps_the_question_and_what_was_said() -> None:
    """A run that is given up leaves its question, the text so far, and why; the next one may go on from there."""
    async with talking(settings_with(SCRIPT)) as backend:
        failed = await say(backend, "broken thing")
        after = await say(backend, "and now?")
        first, second = await kept(backend.state)
    assert "invalid_request" in failed.error
    assert texts(first.messages) == ["broken thing", "a "]
    assert first.error == failed.error
    assert after.output == "echo and now?"
    assert texts(second.messages) == ["and now?", "echo and now?"]


async def test_a_retried_run_is_kept_once() -> None:
    """An attempt that is tried again leaves nothing; the one that succeeds leaves one exchange."""
    async with talking(settings_with(SCRIPT)) as backend:
        result = await say(backend, "flaky")
        exchanges = await kept(backend.state)
    assert result.output == "well"
    assert [texts(each.messages) for each in exchanges] == [["flaky", "well"]]


async def test_a_cancelled_run_keeps_the_text_so_far() -> None:
    """Somebody stops an answer: the question and what was written until then stay."""
    async with talking(settings_with(SCRIPT)) as backend:
        task_id = await backend.queue.submit(Task(prompt="endless", conversation_id="c1"))
        seen: list[Chunk] = []
        async with asyncio.timeout(WITHIN_S):
            async for chunk in backend.chunks.subscribe(task_id):
                seen.append(chunk)
                if len(seen) == 3:
                    await backend.queue.cancel([task_id])
        [exchange] = await kept(backend.state)
    assert exchange.error == RUN_CANCELLED
    assert texts(exchange.asked) == ["endless"]
    assert texts(exchange.answered) == ["".join(each.content for each in seen if each.type is ChunkType.CONTENT)]


async def test_a_client_that_keeps_the_history_itself_gets_no_other() -> None:
    """With `own_history` the run begins with the task's history alone, which is not kept a second time."""
    register("repeating", Repeating)
    agents = {"whole": AgentConfig(model="m", provider="repeating", name="whole")}
    settings = msgspec.structs.replace(settings_with(), agents=agents)
    async with talking(settings) as backend:
        await say(backend, "one")
        history = ({"role": "user", "content": "uno"}, {"role": "assistant", "content": "echo uno"})
        result = await say(backend, "two", agent="whole", history=history, meta={OWN_HISTORY: "1"})
        exchanges = await kept(backend.state)
    assert result.output.endswith("after ['uno', 'echo uno']")
    assert texts(exchanges[1].asked) == ["two"]


class Plain:
    """A provider that runs whole tasks, without tools and without telling anything meanwhile."""

    name = "plain"

    async def run_task(
        self, config: AgentConfig, task: Task, tools: Sequence[ToolSpec], call_tool: CallTool, chunk_fn: ChunkFn
    ) -> tuple[str, TokenUsage]:
        """The answer, all at once."""
        return "all at once", TokenUsage(input_tokens=1, output_tokens=1)


async def test_the_answer_of_a_provider_that_tells_no_turns_is_kept() -> None:
    """It has called no tool either: its output is the answer."""
    register("plain", Plain)
    async with talking(settings_with(agents={"whole": AgentConfig(model="m", provider="plain")})) as backend:
        await say(backend, "one", agent="whole")
        [exchange] = await kept(backend.state)
    assert texts(exchange.messages) == ["one", "all at once"]


async def test_what_earlier_deliveries_finished_is_kept_of_a_run_that_did_not_begin() -> None:
    """A task is taken over, and ends before its run begins: the turns that another worker finished are kept."""
    async with talking(settings_with()) as backend:
        conversations = Conversations(backend.state, backend.queue, keep_s=600)
        run = ConversationRun(conversations, Task(id="t1", prompt="go", conversation_id="c1"), again=1)
        call = ToolCall(id="1", name="look")
        end = TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=(call,)),
            stop_reason=StopReason.TOOL_USE,
            usage=TokenUsage(),
        )
        turn = FinishedTurn(attempt=0, end=end, outcomes={"1": ToolOutcome(call_id="1", name="look", content="a cat")})
        past = Past(resumption=Resumption(turns=(turn,)))
        await backend.state.append_once(run.records(error=RUN_CANCELLED, past=past))
        [exchange] = await kept(backend.state)
    assert texts(exchange.messages) == ["go", "call:look", "outcome:a cat"]
    assert exchange.error == RUN_CANCELLED


async def test_an_answer_with_pauses_is_one_message() -> None:
    """The vendor paused a long turn and went on: both parts are the assistant's one message."""
    async with talking(settings_with()) as backend:
        conversations = Conversations(backend.state, backend.queue, keep_s=600)
        run = ConversationRun(conversations, Task(id="t1", prompt="go", conversation_id="c1"), again=0)
        turns = tuple(
            FinishedTurn(attempt=0, end=TurnEnd(message=Message.assistant(text), stop_reason=why, usage=TokenUsage()))
            for text, why in (("first ", StopReason.PAUSE), ("second", StopReason.END_TURN))
        )
        await backend.state.append_once(run.records(output="second", past=Past(resumption=Resumption(turns=turns))))
        [exchange] = await kept(backend.state)
    assert texts(exchange.messages) == ["go", "first +second"]


async def test_a_requeued_task_replaces_its_failed_exchange() -> None:
    """A dead letter that is brought back and answered leaves its answer, not the failure beside it."""
    script = {"turns": [{"text": "well", "fault": {"kind": "invalid_request", "attempts": 1, "message": "no"}}]}
    async with talking(settings_with({"scenarios": [script]})) as backend:
        failed = await say(backend, "try")
        [letter] = await backend.queue.dead_letters()
        before = await kept(backend.state)
        [task_id] = await backend.queue.requeue([letter.id])
        await backend.queue.wait(task_id, WITHIN_S)
        exchanges = await kept(backend.state)
    assert failed.error
    assert [each.error for each in before] == [failed.error]
    assert [(texts(each.messages), each.error) for each in exchanges] == [(["try", "well"], "")]


async def test_a_task_that_failed_before_it_began_is_requeued_too() -> None:
    """Its agent was switched off. Once it is on, the requeued letter is answered, and that is what is kept."""
    async with talking(settings_with()) as backend:
        await declare_agent(backend, "late", ECHO)
        agents = Definitions(backend.state).agents
        await agents.change("late", lambda agent: replace(agent, is_active=False))

        async def says(prompt: str, *, it_is_on: bool) -> bool:
            result = await say(backend, prompt, conversation="other", agent="late")
            return (not result.error) is it_is_on

        await until(lambda: says("are you off?", it_is_on=False))
        failed = await say(backend, "hello", agent="late")
        letter = next(each for each in await backend.queue.dead_letters() if each.task_id == failed.task_id)
        await agents.change("late", lambda agent: replace(agent, is_active=True))
        await until(lambda: says("are you on?", it_is_on=True))
        [task_id] = await backend.queue.requeue([letter.id])
        answered = await backend.queue.wait(task_id, WITHIN_S)
        exchanges = await kept(backend.state)
    assert "not active" in failed.error
    assert answered.output == "echo hello"
    assert [(texts(each.messages), each.error) for each in exchanges] == [(["hello", "echo hello"], "")]


MANIFEST = {"id": "looker", "version": "1", "name": "Looker", "capabilities": {"hooks": ["agent"]}}
PLUGIN = """
from worker.agent_plugins import AgentPlugin

class Looker(AgentPlugin):
    async def handle_message(self, request, stream):
        await stream.thinking("let me ")
        await stream.thinking("see")
        await stream.content("I look. ")
        call = await stream.tool_call("look", {"at": request.message})
        await stream.tool_result(call, "look", "a cat")
        await stream.content(f"After {len(request.history)}: a cat")
"""


async def test_an_agent_plugin_takes_part(tmp_path: Path) -> None:
    """A plugin is given what was said before; of its answer all is kept that consumers saw."""
    folder = tmp_path / "plugins" / "looker"
    folder.mkdir(parents=True)
    (folder / "plugin.manifest.json").write_text(json.dumps(MANIFEST))
    (folder / "plugin.py").write_text(PLUGIN)
    settings = settings_with(agent_plugins_dir=str(folder.parent))
    async with talking(settings) as backend:
        await Definitions(backend.state).agents.create(Agent(slug="looker", plugin="looker"))
        await until(lambda: _is_plugins(backend))
        await say(backend, "one", agent="looker")
        second = await say(backend, "two", agent="looker")
        exchanges = await kept(backend.state)
    assert [texts(each.messages) for each in exchanges] == [
        ["one", "let me see+I look. +call:look", "outcome:a cat", "After 0: a cat"],
        ["two", "let me see+I look. +call:look", "outcome:a cat", "After 4: a cat"],
    ]
    assert second.error == ""


async def _is_plugins(backend: Backend) -> bool:
    """Whether the worker knows of the agent."""
    task_id = await backend.queue.submit(Task(prompt="are you there?", agent="looker"))
    return "a cat" in (await backend.queue.wait(task_id, WITHIN_S)).output


def test_what_a_plugin_tells_becomes_messages() -> None:
    """Results without an id belong to the oldest open call; an answer whose beginning was told before is kept whole."""
    told = Told()
    told.hear(ChunkType.TOOL_CALL, "look", {})
    told.hear(ChunkType.TOOL_CALL, "find", {"arguments": {"x": 1}})
    told.hear(ChunkType.TOOL_RESULT, "cat", {})
    told.hear(ChunkType.TOOL_RESULT, "dog", {"is_error": True})
    told.hear(ChunkType.TOOL_RESULT, "nobody asked", {})
    told.hear(ChunkType.CONTENT, "the ", {})
    told.hear(ChunkType.CONTENT, "end", {})
    assert texts(told.messages("the end")) == ["call:look+call:find", "outcome:cat", "outcome:dog", "the end"]
    assert texts(told.messages("Once. the end")) == ["Once. the end"]
