"""A run as the typed events of a streamed response. Pure: the same record and the same events of the narration give the
same events with the same sequence numbers, which is what resuming rests on.

Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from queue_backends.messages import JsonObject
from worker.gateway.ingress.call_ids import call_id
from worker.gateway.ingress.failures import message_of
from worker.gateway.ingress.narration import ClientCall, Ended, Event, Failed, Said, Thought, Withdrawn
from worker.gateway.ingress.streaming import REFUSED
from worker.gateway.openai_api.response_object import ended_response, response_object
from worker.gateway.openai_api.response_store import ResponseRecord

Items = Iterator[JsonObject]


class ResponseEvents:
    """Builds a response, event by event."""

    def __init__(self, record: ResponseRecord) -> None:
        self.record = record
        self.output: list[JsonObject] = []
        """Items that are done and hold."""
        self.final: JsonObject | None = None
        """The whole response, once it has ended."""
        self._sequence = 0
        self._index = 0
        """Of the next item."""
        self._turns: list[int] = []
        """The turn of each item of `output`."""
        self._open: _OpenItem | None = None
        self._is_running = not record.background

    def begin(self) -> Items:
        """What comes before anything is known of the run."""
        waiting = "queued" if self.record.background else "in_progress"
        opening = response_object(self.record, waiting)
        yield self._event("response.created", response=opening)
        yield self._event(f"response.{waiting}", response=opening)

    def add(self, event: Event) -> Items:
        """What an event of the run adds."""
        if not self._is_running:
            self._is_running = True
            yield self._event("response.in_progress", response=response_object(self.record, "in_progress"))
        match event:
            case Said():
                if not self.record.has_schema:  # only the last turn's text is the answer, and only whole does it fit
                    yield from self._text(event.text, event.turn, is_thought=False, begins=event.begins)
            case Thought():
                yield from self._text(event.text, event.turn, is_thought=True, begins=event.begins)
            case Withdrawn(turn=turn):
                yield from self._withdraw(turn)
            case Ended():
                yield from self._close("completed")
                for position, made in enumerate(event.calls[: None if self.record.parallel_calls else 1]):
                    yield from self._call(made, position)
                yield from self._end(event)
            case Failed():
                yield from self._close("incomplete")
                if event.error_type == REFUSED:
                    yield from self._refusal(message_of(event))
                    yield from self._end(Ended(stop_reason="", usage=event.usage))
                else:
                    yield from self._end(event)

    def answer(self, text: str, turn: int = 0) -> Items:
        """The whole answer at once, where it has to fit a schema."""
        yield from self._text(text, turn, is_thought=False, begins=True)

    # Items

    def _text(self, text: str, turn: int, *, is_thought: bool, begins: bool) -> Items:
        if self._open is None or begins or self._open.is_thought is not is_thought:
            yield from self._close("completed")
            self._open = _OpenItem(self.record.task_id, self._next_index(), turn, is_thought)
            yield from map(self._numbered, self._open.begin())
        yield from map(self._numbered, self._open.add(text))

    def _close(self, status: str) -> Items:
        if (item := self._open) is not None:
            self._open = None
            yield from map(self._numbered, item.end(status))
            self._done(item.item(status), item.turn)

    def _withdraw(self, turn: int) -> Items:
        """The items stay told, as incomplete ones, and are no part of the response."""
        yield from self._close("incomplete")
        kept = [(item, its) for item, its in zip(self.output, self._turns, strict=True) if its < turn]
        self.output, self._turns = [item for item, _ in kept], [its for _, its in kept]

    def _call(self, made: ClientCall, position: int) -> Items:
        index = self._next_index()
        identifier = f"fc_{self.record.task_id}_{index}"
        item: dict[str, Any] = {
            "id": identifier,
            "type": "function_call",
            "status": "in_progress",
            "call_id": call_id(self.record.task_id, position),
            "name": made.name,
            "arguments": "",
        }
        yield self._event("response.output_item.added", output_index=index, item=item)
        place = {"item_id": identifier, "output_index": index}
        yield self._event("response.function_call_arguments.delta", **place, delta=made.arguments)
        yield self._event("response.function_call_arguments.done", **place, name=made.name, arguments=made.arguments)
        whole = {**item, "status": "completed", "arguments": made.arguments}
        yield self._event("response.output_item.done", output_index=index, item=whole)
        self._done(whole)

    def _refusal(self, text: str) -> Items:
        index = self._next_index()
        identifier = f"msg_{self.record.task_id}_{index}"
        item = {"id": identifier, "type": "message", "role": "assistant"}
        yield self._event(
            "response.output_item.added", output_index=index, item={**item, "status": "in_progress", "content": []}
        )
        place = {"item_id": identifier, "output_index": index, "content_index": 0}
        part = {"type": "refusal", "refusal": text}
        yield self._event("response.content_part.added", **place, part={"type": "refusal", "refusal": ""})
        yield self._event("response.refusal.delta", **place, delta=text)
        yield self._event("response.refusal.done", **place, refusal=text)
        yield self._event("response.content_part.done", **place, part=part)
        whole = {**item, "status": "completed", "content": [part]}
        yield self._event("response.output_item.done", output_index=index, item=whole)
        self._done(whole)

    def _done(self, item: JsonObject, turn: int = 1_000_000) -> None:
        self.output.append(item)
        self._turns.append(turn)

    def _end(self, end: Ended | Failed) -> Items:
        self.final = ended_response(self.record, end, self.output)
        status = self.final["status"]
        # There is no event for a cancelled response; what happened stands in its status.
        name = "response.failed" if status == "cancelled" else f"response.{status}"
        yield self._event(name, response=self.final)

    # Numbers

    def _next_index(self) -> int:
        index = self._index
        self._index += 1
        return index

    def _event(self, kind: str, **fields: Any) -> JsonObject:
        return self._numbered({"type": kind, **fields})

    def _numbered(self, event: JsonObject) -> JsonObject:
        number = self._sequence
        self._sequence += 1
        return {**event, "sequence_number": number}


class _OpenItem:
    """A message or a stretch of reasoning that is being told."""

    def __init__(self, task_id: str, index: int, turn: int, is_thought: bool) -> None:
        self.turn = turn
        self.is_thought = is_thought
        self._pieces: list[str] = []
        self._index = index
        self._id = f"{'rs' if is_thought else 'msg'}_{task_id}_{index}"
        inner = "summary_index" if is_thought else "content_index"
        self._place = {"item_id": self._id, "output_index": index, inner: 0}
        self._name = "response.reasoning_summary_text" if is_thought else "response.output_text"
        self._part_name = "response.reasoning_summary_part" if is_thought else "response.content_part"

    def begin(self) -> Items:
        item = self.item("in_progress")
        item["summary" if self.is_thought else "content"] = []
        yield {"type": "response.output_item.added", "output_index": self._index, "item": item}
        yield {"type": f"{self._part_name}.added", **self._place, "part": self._part("")}

    def add(self, text: str) -> Items:
        self._pieces.append(text)
        extra: JsonObject = {} if self.is_thought else {"logprobs": []}
        yield {"type": f"{self._name}.delta", **self._place, "delta": text, **extra}

    def end(self, status: str) -> Items:
        text = "".join(self._pieces)
        extra: JsonObject = {} if self.is_thought else {"logprobs": []}
        yield {"type": f"{self._name}.done", **self._place, "text": text, **extra}
        yield {"type": f"{self._part_name}.done", **self._place, "part": self._part(text)}
        yield {"type": "response.output_item.done", "output_index": self._index, "item": self.item(status)}

    def item(self, status: str) -> JsonObject:
        """The item as it stands."""
        part = self._part("".join(self._pieces))
        if self.is_thought:
            return {"id": self._id, "type": "reasoning", "summary": [part], "status": status}
        return {"id": self._id, "type": "message", "role": "assistant", "status": status, "content": [part]}

    def _part(self, text: str) -> JsonObject:
        if self.is_thought:
            return {"type": "summary_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
