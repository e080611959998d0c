"""Python functions as tools: schema, description, arguments, threads, and loading."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from tests.tools.tool_servers import call
from worker.errors import ToolSetupFailed
from worker.tools import ToolContext, python_tool, tool
from worker.tools.catalogue import ToolCatalogue
from worker.tools.loading import load_tools

EXAMPLE = Path(__file__).parents[2] / "examples" / "tools_python.py"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Shape(msgspec.Struct):
    points: list[Point]
    colour: Colour = Colour.RED


def draw(
    shape: Shape,
    on: datetime.date,
    context: ToolContext,
    scale: Annotated[float, msgspec.Meta(gt=0, description="How large.")] = 1.0,
    style: Literal["thin", "thick"] | None = None,
    tags: list[str] = [],  # noqa: B006 - what a user may well write
) -> dict[str, Any]:
    """Draw a shape
    on paper.

    Args:
        shape: What to draw,
            point by point.
        on (date): When.
        scale: not this text

    Returns:
        What was drawn.
    """
    return {
        "first": shape.points[0].x,
        "colour": shape.colour,
        "on": on.year,
        "scale": scale,
        "style": style,
        "tags": tags,
        "for": context.task_id,
    }


def test_the_schema_comes_from_the_signature() -> None:
    """Types, limits, defaults, choices and nested structures; the context is not the model's business."""
    schema = python_tool(draw).spec.input_schema

    assert schema["required"] == ["shape", "on"]
    assert set(schema["properties"]) == {"shape", "on", "scale", "style", "tags"}
    assert schema["properties"]["on"] == {"type": "string", "format": "date", "description": "When."}
    assert schema["properties"]["scale"]["exclusiveMinimum"] == 0
    assert schema["properties"]["scale"]["default"] == 1.0
    assert schema["$defs"]["Point"]["required"] == ["x"]
    assert schema["$defs"]["Colour"]["enum"] == ["red"]


def test_descriptions_come_from_the_docstring() -> None:
    """The text before the sections is the tool's; "Args:" describes arguments, and `Meta` wins."""
    spec = python_tool(draw).spec

    assert spec.description == "Draw a shape\non paper."
    assert spec.input_schema["properties"]["shape"]["description"] == "What to draw, point by point."
    assert spec.input_schema["properties"]["scale"]["description"] == "How large."


async def test_arguments_arrive_as_python_values() -> None:
    """JSON becomes dates, enums, Structs and dataclasses; what the model leaves out has Python's default."""
    arguments = '{"shape": {"points": [{"x": 3}]}, "on": "2026-11-21"}'

    outcome = await call(ToolCatalogue(tools=[python_tool(draw)]), "draw", arguments, ToolContext(task_id="7"))

    assert outcome.structured == {
        "first": 3,
        "colour": "red",
        "on": 2026,
        "scale": 1.0,
        "style": None,
        "tags": [],
        "for": "7",
    }


async def test_what_the_types_forbid_is_told_to_the_model() -> None:
    """A date that is none passes the schema, not the conversion; an argument too many does neither."""
    catalogue = ToolCatalogue(tools=[python_tool(draw)])

    no_date = await call(catalogue, "draw", '{"shape": {"points": []}, "on": "soon"}')
    too_many = await call(catalogue, "draw", '{"shape": {"points": []}, "on": "2026-11-21", "zoom": 1}')

    assert 'invalid arguments for tool "draw"' in no_date.content
    assert "`$.on`" in no_date.content
    assert "'zoom' was unexpected" in too_many.content


async def test_a_whole_number_may_be_written_with_a_point() -> None:
    """JSON Schema counts 3.0 as an integer, and some models write it so; the function still gets an int."""

    def kind(n: int) -> str:
        return type(n).__name__

    outcome = await call(ToolCatalogue(tools=[python_tool(kind)]), "kind", '{"n": 3.0}')

    assert outcome.content == "int"


async def test_async_functions_run_in_the_loop_and_plain_ones_in_threads() -> None:
    """A plain function may block; nothing else stands still meanwhile."""
    seen: dict[str, threading.Thread] = {}

    async def swims() -> None:
        seen["async"] = threading.current_thread()

    def walks() -> None:
        seen["plain"] = threading.current_thread()

    catalogue = ToolCatalogue(tools=[python_tool(swims), python_tool(walks)])
    await call(catalogue, "swims")
    await call(catalogue, "walks")

    assert seen["async"] is threading.current_thread()
    assert seen["plain"] is not threading.current_thread()
    assert seen["plain"].daemon


async def test_a_thread_that_hangs_is_told_to_go_on() -> None:
    """It cannot be stopped, so the model is told; and while it hangs, it counts against the limit."""
    let_go = threading.Event()

    def hang() -> str:
        let_go.wait(30)
        return "done"

    catalogue = ToolCatalogue(tools=[python_tool(hang, timeout_s=0.05, max_threads=1)])
    first = await call(catalogue, "hang")
    second = await call(catalogue, "hang")
    let_go.set()

    for outcome in (first, second):
        assert "within 0.05 s; its thread cannot be stopped and may still be running" in outcome.content


@pytest.mark.parametrize("error", [StopIteration(3), SystemExit(1), KeyError("k")])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_no_exception_takes_the_worker_down(error: BaseException, in_thread: bool) -> None:
    """Not even `sys.exit()`, nor StopIteration, which a future refuses to carry."""

    def plain() -> None:
        raise error

    async def swims() -> None:
        raise error

    tools = [python_tool(plain if in_thread else swims, name="t")]
    async with asyncio.timeout(10):
        outcome = await call(ToolCatalogue(tools=tools), "t")

    assert outcome.is_error


async def test_cancelling_reaches_an_async_function() -> None:
    """What runs in the loop ends with its run."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def forever() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(call(ToolCatalogue(tools=[python_tool(forever)]), "forever"))
    async with asyncio.timeout(10):
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert ended.is_set()


def test_a_decorated_function_stays_a_function() -> None:
    """Its author can call and test it; the options are kept for the catalogue."""

    @tool(idempotent=True, timeout_s=3, name="twice")
    def double(n: int) -> int:
        return 2 * n

    spec = python_tool(double).spec

    assert double(4) == 8
    assert (spec.name, spec.idempotent, spec.timeout_s, spec.kind) == ("twice", True, 3, "python")


def no_annotation(x) -> None:  # type: ignore[no-untyped-def]  # the mistake under test
    pass


def star(*args: int) -> None:
    pass


def no_json(x: threading.Lock) -> None:
    pass


async def many() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (no_annotation, "'x' has no type annotation"),
        (star, "cannot be given by name"),
        (no_json, "no JSON Schema"),
        (many, "is a generator"),
        (lambda: None, "tool name '<lambda>'"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused_at_once(function: Any, reason: str) -> None:
    """The mistake shows where the tool is defined, and names the parameter."""
    with pytest.raises(ToolSetupFailed) as raised:
        tool(function)
    assert reason in str(raised.value)


async def test_the_example_file_works() -> None:
    """What the documentation shows is what runs."""
    catalogue = ToolCatalogue(tools=load_tools(str(EXAMPLE)))

    stock = await call(catalogue, "stock_level", '{"article": "apple"}')
    unknown = await call(catalogue, "stock_level", '{"article": "kiwi"}')
    order = await call(catalogue, "place_order", '{"lines": [{"article": "plum", "pieces": 2}]}')

    assert stock.content == "12"
    assert (unknown.is_error, unknown.content) == (True, "there is no article 'kiwi'; there are: apple, pear, plum")
    assert order.structured["pieces"] == 2


def test_tools_are_loaded_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the working directory is found; functions it merely imports are not offered."""
    (tmp_path / "shop_tools.py").write_text(
        "from worker.tools import tool\n@tool\ndef a() -> str: return 'a'\n@tool\ndef b() -> str: return 'b'\n"
        "def plain(n: int) -> int: return n\nboth = [a, plain]\n"
    )
    (tmp_path / "more_tools.py").write_text(
        "from shop_tools import a\nfrom worker.tools import tool\n@tool\ndef c(): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("shop_tools", "more_tools"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def names(reference: str) -> list[str]:
        return [loaded.spec.name for loaded in load_tools(reference)]

    assert names("shop_tools") == ["a", "b"]
    assert names("shop_tools:plain") == ["plain"]
    assert names("shop_tools:both") == ["a", "plain"]
    assert names("more_tools.py") == ["c"]


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("no.such.module", "cannot be imported: ModuleNotFoundError"),
        ("no/such/file.py", "there is no file"),
        ("msgspec", "no function there is marked by @tool"),
        ("msgspec:nothing", "there is no 'nothing' in it"),
        ("msgspec:__version__", "neither a function nor a list"),
    ],
)
def test_a_wrong_reference_is_explained(reference: str, reason: str) -> None:
    """One line: which reference, and what is wrong with it."""
    with pytest.raises(ToolSetupFailed) as raised:
        load_tools(reference)
    assert reason in str(raised.value)
