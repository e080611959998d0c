"""The catalogue: order, validation, limits, and that whatever goes wrong is told to the model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from providers.messages import ImagePart, ToolSpec
from tests.tools.tool_servers import call
from worker.errors import BadSetting, ToolCallFailed
from worker.tools import Tool, ToolContext, ToolResult, python_tool
from worker.tools.builtin import SubmitSubtask
from worker.tools.catalogue import ToolCatalogue


class FixedServer:
    """A tool server whose tools and troubles the test decides."""

    def __init__(self, name: str, tools: tuple[Tool, ...] = (), problem: str = "") -> None:
        self.name = name
        self.listed = tools
        self.said = problem
        self.is_serving = asyncio.Event()
        self.has_ended = False

    def tools(self) -> tuple[Tool, ...]:
        return self.listed

    def problem(self) -> str:
        return self.said

    async def first_attempt(self) -> None:
        await self.is_serving.wait()

    async def serve(self) -> None:
        self.is_serving.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.has_ended = True


class Fixed:
    """A tool that returns or raises what the test decides."""

    after_timeout = "it is gone"

    def __init__(self, name: str, answer: Any = "ok", **spec: Any) -> None:
        self.spec = ToolSpec(name=name, **spec)
        self.answer = answer
        self.seen: list[tuple[dict[str, Any], ToolContext]] = []
        self.was_called = asyncio.Event()

    async def call(self, arguments: dict[str, Any], context: ToolContext) -> ToolResult:
        self.seen.append((arguments, context))
        self.was_called.set()
        if isinstance(self.answer, BaseException):
            raise self.answer
        if isinstance(self.answer, asyncio.Event):
            await self.answer.wait()
        return self.answer if isinstance(self.answer, ToolResult) else ToolResult(text=str(self.answer))


NEEDS_Q = {"type": "object", "properties": {"q": {"type": "array", "items": {"type": "integer"}}}, "required": ["q"]}


def test_the_order_is_arks() -> None:
    """MCP tools in server order, then webhooks, built-ins, and Python functions last, however they were given."""
    servers = [FixedServer("two", (Fixed("two__a", kind="mcp"),)), FixedServer("one", (Fixed("one__a", kind="mcp"),))]
    tools: list[Tool] = [Fixed("py", kind="python"), SubmitSubtask(), Fixed("hook", kind="webhook")]

    names = [spec.name for spec in ToolCatalogue(servers=servers, tools=tools).specs()]

    assert names == ["two__a", "one__a", "hook", "submit_subtask", "py"]


def test_tools_are_chosen_by_name_or_pattern() -> None:
    """An agent gets the tools it names; None means all, and an empty list none."""
    catalogue = ToolCatalogue(tools=[Fixed("s__a"), Fixed("s__b"), Fixed("other")])

    assert [spec.name for spec in catalogue.specs(["s__*", "missing"])] == ["s__a", "s__b"]
    assert catalogue.specs([]) == ()
    assert len(catalogue.specs()) == 3


def test_a_name_used_twice_is_refused() -> None:
    """Two tools of one name would leave it to chance which is called."""
    with pytest.raises(BadSetting, match="'a' is used 2 times"):
        ToolCatalogue(tools=[Fixed("a"), Fixed("a")])


async def test_arguments_and_context_reach_the_tool() -> None:
    """The raw JSON is parsed; empty text is no arguments; the call's id is added to the context."""
    fixed = Fixed("t")
    catalogue = ToolCatalogue(tools=[fixed])

    await call(catalogue, "t", '{"x": [1, "ü"]}', ToolContext(task_id="7", agent="a"))
    await call(catalogue, "t", "")

    assert fixed.seen[0] == ({"x": [1, "ü"]}, ToolContext(task_id="7", agent="a", call_id="call-1"))
    assert fixed.seen[1][0] == {}


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("nix", "{}", 'tool "nix" not found; available: t'),
        ("t", "{oops", 'arguments of tool "t" are not valid JSON'),
        ("t", "[" * 100_000, 'arguments of tool "t" are not valid JSON'),
        ("t", "[1]", "JSON list: give an object"),
        ("t", "{}", '"q" is a required property'),
        ("t", '{"q": [1, "x"]}', 'q.1: "x" is not of type "integer"'),
    ],
)
async def test_a_wrong_call_is_told_to_the_model(name: str, arguments: str, text: str) -> None:
    """The model reads what was wrong and where, and the tool is not called."""
    fixed = Fixed("t", input_schema=NEEDS_Q)

    outcome = await call(ToolCatalogue(tools=[fixed]), name, arguments)

    assert outcome.is_error
    assert outcome.call_id == "call-1"
    assert text in outcome.content
    assert fixed.seen == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ToolCallFailed("no such city"), "no such city"),
        (ValueError("bad value"), 'tool "t" failed: ValueError: bad value'),
        (TimeoutError(), 'tool "t" failed: TimeoutError'),
    ],
)
async def test_an_exception_is_an_outcome(error: Exception, text: str) -> None:
    """A tool's failure never fails the run."""
    outcome = await call(ToolCatalogue(tools=[Fixed("t", error)]), "t")

    assert (outcome.content, outcome.is_error) == (text, True)


async def test_a_tool_that_takes_too_long_is_ended() -> None:
    """The model learns the limit, and what may still happen."""
    outcome = await call(ToolCatalogue(tools=[Fixed("t", asyncio.Event(), timeout_s=0.01)]), "t")

    assert (outcome.content, outcome.is_error) == ('tool "t" gave no answer within 0.01 s; it is gone', True)


async def test_cancellation_passes_through() -> None:
    """A cancelled run gets no outcome: it ends."""
    fixed = Fixed("t", asyncio.Event())
    running = asyncio.create_task(call(ToolCatalogue(tools=[fixed]), "t"))
    async with asyncio.timeout(10):
        await fixed.was_called.wait()

        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running


async def test_long_output_is_cut_visibly() -> None:
    """The model sees that there was more, and how much; the lower of both limits counts."""
    catalogue = ToolCatalogue(tools=[Fixed("t", "x" * 50, max_output_chars=20)], max_output_chars=10)

    outcome = await call(catalogue, "t")

    assert outcome.content == "x" * 10 + "\n[output cut: 50 characters, the first 10 are shown]"


async def test_pictures_too_large_are_left_out_visibly() -> None:
    """A vendor would refuse the whole request."""
    images = (ImagePart(media_type="image/png", data="AA=="), ImagePart(media_type="image/png", data="A" * 6_000_000))

    outcome = await call(ToolCatalogue(tools=[Fixed("t", ToolResult(text="see", images=images))]), "t")

    assert outcome.images == images[:1]
    assert outcome.content == "see\n[1 image(s) left out: too large or too many]"


async def test_text_that_is_no_unicode_does_not_break_the_run() -> None:
    """A lone surrogate cannot be sent to any vendor."""
    outcome = await call(ToolCatalogue(tools=[Fixed("t", "a\ud800b")]), "t")

    assert outcome.content == "a?b"


async def test_a_server_that_is_down_leaves_the_rest_working() -> None:
    """Its reason is in `problems`, and in what the model reads when it asks for one of its tools."""
    servers = [FixedServer("down", problem="refused"), FixedServer("up", (Fixed("up__a", kind="mcp"),))]

    async with ToolCatalogue(servers=servers) as catalogue:
        outcome = await call(catalogue, "up__a")
        missing = await call(catalogue, "down__a")

        assert catalogue.problems() == {"down": "refused"}
    assert outcome.content == "ok"
    assert missing.content == 'tool "down__a" not found; available: up__a; not available right now: down'
    assert all(server.has_ended for server in servers)


async def test_a_changed_tool_list_is_seen_and_a_bad_tool_is_left_out() -> None:
    """One impossible schema would make the vendor refuse every request of the agent."""
    server = FixedServer("s")
    catalogue = ToolCatalogue(servers=[server], tools=[Fixed("taken")])
    assert [spec.name for spec in catalogue.specs()] == ["taken"]

    server.listed = (Fixed("good"), Fixed("bad", input_schema={"type": "object", "properties": 3}), Fixed("taken"))

    assert [spec.name for spec in catalogue.specs()] == ["good", "taken"]
    assert set(catalogue.problems()) == {"bad", "taken"}


async def test_an_error_in_the_body_comes_out_unwrapped() -> None:
    """The catalogue's own tasks leave no trace in the caller's exceptions."""
    server = FixedServer("s")

    with pytest.raises(ZeroDivisionError):
        async with ToolCatalogue(servers=[server]):
            _ = 1 / 0
    assert server.has_ended


async def test_a_server_that_does_not_answer_delays_the_start_only_so_long() -> None:
    """The first attempt is waited for, with a limit."""
    server = FixedServer("s")
    server.is_serving.set = lambda: None  # type: ignore[method-assign]  # it will never have attempted

    async with asyncio.timeout(10), ToolCatalogue(servers=[server], connect_wait_s=0.01) as catalogue:
        assert catalogue.specs() == ()


async def test_a_tool_catalogue_takes_plain_functions() -> None:
    """What `python_tool` makes is a tool like any other."""

    def double(n: int) -> int:
        """Twice."""
        return 2 * n

    outcome = await call(ToolCatalogue(tools=[python_tool(double)]), "double", '{"n": 21}')

    assert (outcome.content, outcome.structured) == ("42", 42)
