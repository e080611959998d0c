"""tasks output: stored tool outputs, in full."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest

from queue_backends import Backend
from tests.cli.cli_harness import Shoal
from worker.tools.outputs import OutputStore

WithBackend = Callable[[Callable[[Backend], Awaitable[None]]], None]
LONG = "".join(f"line {number}: grüße\n" for number in range(40_000))


@pytest.fixture
def stored(with_backend: WithBackend) -> None:
    """Two outputs of a task."""

    async def store(backend: Backend) -> None:
        outputs = OutputStore(backend.state, keep_s=60, max_chars=2_000_000).of("1-0")
        await outputs.keep("call_0_0", LONG)
        await outputs.keep("call_1_0", "short")

    with_backend(store)


@pytest.mark.usefixtures("stored")
def test_an_output_is_printed_as_it_is(shoal: Shoal) -> None:
    """Every character of it, by the id alone or as the note has it."""
    assert shoal("tasks", "output", "1-0", "call_0_0").out == LONG
    assert shoal("tasks", "output", "1-0", "output:call_1_0").out == "short"


@pytest.mark.usefixtures("stored")
def test_outputs_are_listed(shoal: Shoal) -> None:
    """Which there are, and how long."""
    listed = shoal("tasks", "output", "1-0").out
    assert "call_0_0" in listed
    rows = [json.loads(line) for line in shoal("tasks", "output", "1-0", "--json").out.splitlines()]
    assert sorted(rows, key=lambda row: row["chars"]) == [
        {"call_id": "call_1_0", "chars": 5},
        {"call_id": "call_0_0", "chars": len(LONG)},
    ]


@pytest.mark.usefixtures("stored")
def test_json_keeps_the_text_in_documents(shoal: Shoal) -> None:
    """One document a line, which together have all of it."""
    rows = [json.loads(line) for line in shoal("tasks", "output", "1-0", "call_0_0", "--json").out.splitlines()]
    assert "".join(row["text"] for row in rows) == LONG


def test_an_output_that_is_not_there(shoal: Shoal) -> None:
    """Exit code 4, and where to look."""
    outcome = shoal("tasks", "output", "1-0", "call_9")
    assert outcome.code == 4
    assert "task 1-0 has no stored output 'call_9': shoal tasks output 1-0 lists those it has" in outcome.err
    assert shoal("tasks", "output", "1-0").code == 0
