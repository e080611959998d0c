"""The answer of a response as it comes in: its items, put together from their pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from providers.answer_limits import CALL_CHARS, check_argument_chars
from providers.messages import Part, TextDelta, TextPart, ThinkingDelta, ToolCall, TurnEvent
from providers.openai_responses_items import is_worth_carrying, skeleton, thinking_part
from queue_backends.messages import JsonObject

_BETWEEN_SUMMARIES = "\n\n"

_item_decoder = msgspec.json.Decoder(dict[str, Any])


class _Item:
    """One item: what its deltas said, and what it says itself, at first and when it is done."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        """Text, refusal, reasoning or arguments, whichever the item is made of."""
        self.known: JsonObject = {}
        self.raw = b""
        self.is_done = False


class Answer:
    """Takes the pieces of each item by the item's index in the response's output. Raises `msgspec.DecodeError` for
    items that cannot be read."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._items: dict[int, _Item] = {}
        self._argument_chars = 0
        self.refused = False
        """The model said that it will not answer."""
        self.is_cut = False
        """The response ended before the model was done."""
        self.is_streamed = False
        """Items came one by one; the list of them in the whole response says nothing new."""

    def text(self, index: int, piece: str) -> Sequence[TurnEvent]:
        """A piece of a message."""
        self._item(index, "message").pieces.append(piece)
        return (TextDelta(piece),)

    def refusal(self, index: int, piece: str) -> Sequence[TurnEvent]:
        """A piece of the model's words for refusing: what it says is its answer."""
        self.refused = True
        return self.text(index, piece)

    def reasoning(self, index: int, piece: str) -> Sequence[TurnEvent]:
        """A piece of reasoning, or of its summary."""
        self._item(index, "reasoning").pieces.append(piece)
        return (ThinkingDelta(piece),)

    def next_summary(self, index: int, summary_index: int) -> Sequence[TurnEvent]:
        """Another part of a summary begins."""
        return self.reasoning(index, _BETWEEN_SUMMARIES) if summary_index > 0 else ()

    def arguments(self, index: int, piece: str) -> None:
        """A piece of a call's arguments. Raises `LimitReached` if there are too many."""
        self._item(index, "function_call").pieces.append(piece)
        self._weigh(len(piece))

    def set_arguments(self, index: int, arguments: str | None) -> None:
        """All of a call's arguments, which counts more than the pieces."""
        if arguments is not None:
            pieces = self._item(index, "function_call").pieces
            self._weigh(len(arguments) - sum(map(len, pieces)))
            pieces[:] = [arguments]

    def begin(self, index: int, raw: Raw) -> None:
        """An item begins; of most there is nothing yet but name and ids."""
        known = _item_decoder.decode(raw)
        self._item(index, "").known = known

    def finish(self, index: int, raw: Raw) -> Sequence[TurnEvent]:
        """An item is done: what no delta has told is told now. Saying so again changes nothing."""
        item = self._item(index, "")
        if item.is_done:
            return ()
        item.known, item.raw, item.is_done = _item_decoder.decode(raw), bytes(raw), True
        self.is_streamed = True
        match item.known.get("type"):
            case "message":
                self.refused = self.refused or _has_refusal(item.known)
                return () if item.pieces else _if_any(self.text(index, _message_text(item.known)))
            case "reasoning":
                return () if item.pieces else _if_any(self.reasoning(index, _reasoning_text(item.known)))
            case "function_call":
                arguments = item.known.get("arguments")
                self.set_arguments(index, arguments if isinstance(arguments, str) and arguments else None)
        return ()

    def take(self, output: Sequence[Raw]) -> list[TurnEvent]:
        """All items, in order, of a response that came in one piece, or without saying when an item is done."""
        return [event for index, raw in enumerate(output) for event in self.finish(index, raw)]

    def parts(self, response_id: str = "") -> Iterator[Part]:
        """The items as parts of a message, in order. With a `response_id`, the next turn can go on from there."""
        items = [self._items[index] for index in sorted(self._items)]
        first = next((place for place, item in enumerate(items) if item.known.get("type") == "reasoning"), len(items))
        leading = [skeleton(item.known) for item in items[:first]]
        if response_id or is_worth_carrying(leading):
            yield thinking_part(self._provider, response_id=response_id, items=leading)
        for place, item in enumerate(items):
            text = "".join(item.pieces)
            match item.known.get("type"):
                case "reasoning":
                    yield thinking_part(
                        self._provider, text=text, reasoning=item.raw, items=_until_reasoning(items[place + 1 :])
                    )
                case "message" if text:
                    yield TextPart(text=text)
                case "function_call" if not self._is_half(item):  # must not be run
                    yield _call(item.known, text)

    def _is_half(self, item: _Item) -> bool:
        return item.known.get("status") == "incomplete" or (self.is_cut and not item.is_done)

    def _item(self, index: int, kind: str) -> _Item:
        """An item; one that has not been announced is of the kind that this piece of it says."""
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item()
            item.known = {"type": kind}
            self._weigh(0)
        return item

    def _weigh(self, chars: int) -> None:
        self._argument_chars += chars
        check_argument_chars(self._argument_chars + CALL_CHARS * len(self._items), self._provider)


def _if_any(events: Sequence[TurnEvent]) -> Sequence[TurnEvent]:
    return [event for event in events if isinstance(event, TextDelta | ThinkingDelta) and event.text]


def _until_reasoning(items: Sequence[_Item]) -> list[JsonObject]:
    skeletons: list[JsonObject] = []
    for item in items:
        if item.known.get("type") == "reasoning":
            break
        if item.is_done:
            skeletons.append(skeleton(item.known))
    return skeletons


def _call(known: JsonObject, arguments: str) -> ToolCall:
    return ToolCall(
        id=str(known.get("call_id") or known.get("id") or ""),
        name=str(known.get("name") or ""),
        arguments=arguments or "{}",
    )


def _message_text(known: JsonObject) -> str:
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in _contents(known, "content"))


def _has_refusal(known: JsonObject) -> bool:
    return any(part.get("type") == "refusal" for part in _contents(known, "content"))


def _reasoning_text(known: JsonObject) -> str:
    summaries = [str(part.get("text") or "") for part in _contents(known, "summary")]
    if summaries:
        return _BETWEEN_SUMMARIES.join(summaries)
    return "".join(str(part.get("text") or "") for part in _contents(known, "content"))


def _contents(known: JsonObject, name: str) -> list[JsonObject]:
    contents = known.get(name)
    return [part for part in contents if isinstance(part, dict)] if isinstance(contents, list) else []
