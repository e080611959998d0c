"""The fake provider, in a process of its own that no fault touches: `python -m tests.faults.model_server DIARY`.

It speaks OpenAI's chat completions as a stream, does what the plan in the task's prompt says, and notes every call:
when it came, which conversation it brought, and how it ended. The port is written to standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from tests.faults.diaries import Diary
from tests.faults.loopback import serve
from tests.faults.plans import (
    Plan,
    Trouble,
    Turn,
    call_id,
    done_text,
    pieces_of,
    plan_of,
    speaker_of,
    step_of,
)

INPUT_TOKENS = 1000
"""What every call reports as its input; its output is its own number, which finds it in the ledger."""
SILENCE_S = 30.0

_STATUS = {Trouble.RATE_LIMITED: 429, Trouble.FAILING: 500, Trouble.OVERLOADED: 503, Trouble.REFUSED: 400}


class Conversation:
    """A request's messages, read as the plan means them."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.plan: Plan = plan_of(next(message["content"] for message in messages if message["role"] == "user"))
        self.lineage: list[int] = []
        self.odd: list[tuple[int, int, str]] = []
        self.mangled = ""
        answers: dict[str, str] = {}
        for message in messages:
            if message["role"] == "assistant":
                self._close_turn(answers)
                self._answered(message)
            elif message["role"] == "tool":
                answers[message["tool_call_id"]] = message["content"]
        self._close_turn(answers)

    @property
    def turn(self) -> int:
        """The number of the turn that is asked for."""
        return len(self.lineage)

    def _answered(self, message: dict[str, Any]) -> None:
        turn, text = self.turn, message["content"] or ""
        speaker = speaker_of(text)
        number = speaker[2] if speaker else 0
        expected = "".join(pieces_of(self.plan, turn, number)) if turn < len(self.plan.turns) else ""
        if text != expected:
            self.mangled = self.mangled or f"turn {turn} is {text[:80]!r}, expected {expected[:80]!r}"
        self.lineage.append(number)

    def _close_turn(self, answers: dict[str, str]) -> None:
        """Compare a turn's tool outcomes with what the tools answer."""
        if not self.lineage:
            return
        turn = self.turn - 1
        uses = self.plan.turns[turn].tools if turn < len(self.plan.turns) else ()
        for index in range(len(uses)):
            said = answers.pop(call_id(self.lineage[turn], index), "(no outcome)")
            if said != done_text(self.plan.key, step_of(turn, index)):
                self.odd.append((turn, index, said[:300]))
        if answers:
            self.mangled = self.mangled or f"outcomes of unknown calls {sorted(answers)}"
            answers.clear()


class ModelServer:
    """Answers model calls."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._calls = 0
        self._asked: Counter[tuple[str, int]] = Counter()

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        talk = Conversation((await request.json())["messages"])
        plan, turn = talk.plan, talk.turn
        self._calls += 1
        number = self._calls
        self._diary.note(
            kind="call",
            no=number,
            key=plan.key,
            turn=turn,
            worker=request.headers.get("x-worker", ""),
            lineage=talk.lineage,
            odd=talk.odd,
            mangled=talk.mangled,
        )
        if turn >= len(plan.turns):
            self._diary.note(kind="end", no=number, ending="beyond the plan", begun=False)
            return _problem(Trouble.REFUSED)
        asked = self._asked[plan.key, turn]
        self._asked[plan.key, turn] += 1
        said = plan.turns[turn]
        trouble = said.trouble[asked] if asked < len(said.trouble) else None
        if Trouble.REFUSED in said.trouble:
            trouble = Trouble.REFUSED
        if trouble in _STATUS:
            self._diary.note(kind="end", no=number, ending="refused", begun=False)
            return _problem(trouble)
        return await self._stream(request, plan, turn, number, trouble)

    async def _stream(
        self, request: web.Request, plan: Plan, turn: int, number: int, trouble: Trouble | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        ending, begun = "left", False
        try:
            await response.prepare(request)
            pieces = pieces_of(plan, turn, number)
            for piece in pieces if trouble is None else pieces[: len(pieces) // 2 + 1]:
                await response.write(_event({"content": piece}))
                begun = True
                await asyncio.sleep(plan.turns[turn].pause_s)
            if trouble is not None:
                ending = "cut"
            else:
                for event in _last_events(plan.turns[turn], plan.key, turn, number):
                    await response.write(event)
                await response.write_eof()
                if request.transport is not None and not request.transport.is_closing():
                    ending = "complete"
        except ConnectionError:
            ending = "left"
        self._diary.note(kind="end", no=number, ending=ending, begun=begun)
        if ending == "cut" and trouble is not None:
            with contextlib.suppress(ConnectionError):
                await _give_up(request, response, trouble)
        return response


async def _give_up(request: web.Request, response: web.StreamResponse, trouble: Trouble) -> None:
    if trouble is Trouble.ERROR_EVENT:
        said = {"error": {"message": "overloaded", "type": "overloaded_error"}}
        await response.write(b"data: " + msgspec.json.encode(said) + b"\n\n")
        return
    if trouble is Trouble.SILENT:
        await asyncio.sleep(SILENCE_S)
    if request.transport is not None:
        request.transport.abort()


def _event(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    body = {"id": "fake", "model": "fake-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _last_events(said: Turn, key: str, turn: int, number: int) -> Iterator[bytes]:
    """Tool calls, reason, usage and end marker."""
    for index, use in enumerate(said.tools):
        arguments = {"key": key, "step": step_of(turn, index), "hold_s": use.hold_s}
        function = {"name": use.tool, "arguments": msgspec.json.encode(arguments).decode()}
        yield _event({"tool_calls": [{"index": index, "id": call_id(number, index), "function": function}]})
    yield _event({}, "tool_calls" if said.tools else "stop")
    usage = {"prompt_tokens": INPUT_TOKENS, "completion_tokens": number}
    yield b"data: " + msgspec.json.encode({"id": "fake", "choices": [], "usage": usage}) + b"\n\ndata: [DONE]\n\n"


def _problem(trouble: Trouble) -> web.Response:
    body = {"error": {"message": f"planned {trouble.value}", "type": "planned"}}
    return web.json_response(body, status=_STATUS[trouble], headers={"retry-after": "0"})


def main() -> None:
    """Serve until killed."""
    diary = Diary(Path(sys.argv[1]))
    app = web.Application(client_max_size=64 * 1024**2)
    app.router.add_post("/v1/chat/completions", ModelServer(diary).completions)
    asyncio.run(serve(app))


if __name__ == "__main__":
    main()
