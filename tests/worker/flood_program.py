"""A worker process whose model talks without end and whose tool answers with megabytes; it tells what it weighed.

python -m tests.worker.flood_program URL CONCURRENCY STREAMED_CHARS OUTPUT_CHARS
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from providers import register
from providers.interfaces import ChatProvider
from providers.messages import (
    Message,
    Role,
    StopReason,
    TextPart,
    ThinkingDelta,
    ToolCall,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from queue_backends import TokenUsage, open_backend
from worker.assembly import open_worker
from worker.log import configure_logging
from worker.settings import load_settings
from worker.tools import tool

DELTA_CHARS = 4_000
TURN_CHARS = 500_000


class Flood(ChatProvider):
    """Reasons in turns of half a megabyte at most, calls tools between them, and ends with one word."""

    name = "flood"

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """Deltas that are each a new text, as they come from a network."""
        total = int(request.config.options["chars"])
        turns = max(2, -(-total // TURN_CHARS))
        for number in range(total // turns // DELTA_CHARS):
            yield ThinkingDelta(str(number % 10) * DELTA_CHARS)
            await asyncio.sleep(0)
        is_last = request.turn == turns - 1
        # The conversation is the run's own and holds no reasoning: what is measured is all that the worker adds to it.
        name = "small" if request.turn else "flood"
        call = ToolCall(id=f"call_{request.turn}", name=name, arguments=json.dumps({"turn": request.turn}))
        yield TurnEnd(
            message=Message(role=Role.ASSISTANT, parts=(TextPart(text="done") if is_last else call,)),
            stop_reason=StopReason.END_TURN if is_last else StopReason.TOOL_USE,
            usage=TokenUsage(input_tokens=1, output_tokens=1),
        )


@tool(idempotent=True)
async def flood(turn: int) -> str:
    """Answer with more than anybody can read."""
    return str(turn % 10) * int(sys.argv[4])


@tool(idempotent=True)
async def small(turn: int) -> str:
    """Answer with little."""
    return str(turn)


async def main() -> None:
    """Work until SIGTERM."""
    configure_logging("error", stream=sys.stderr)
    url, concurrency, streamed_chars = sys.argv[1:4]
    register("flood", Flood)
    overrides = {
        "agent.model": "flood",
        "agent.provider": "flood",
        "agent.options": {"chars": int(streamed_chars)},
        "agent.max_turns": 1000,
        "concurrency": int(concurrency),
        "timeout_s": 600,
        "python_tools": (f"{Path(__file__)}",),
        "backend.chunk_bytes": 65_536,
        "max_stored_output_chars": 65_536,
    }
    settings = load_settings({}, file=None, overrides=overrides)
    async with await open_backend(url, settings.backend) as backend, open_worker(settings, backend):
        stopping = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        print(json.dumps({"ready_kib": peak_kib()}), flush=True)
        await stopping.wait()
    print(json.dumps({"peak_kib": peak_kib()}), flush=True)


def peak_kib() -> int:
    """The most memory that this process ever had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    asyncio.run(main())
