"""Text that goes from the model to the consumers without waking the run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from providers.interfaces import ChunkFn
from providers.messages import TextDelta, ThinkingDelta, TurnEvent, UsageUpdate
from queue_backends import ChunkType

if TYPE_CHECKING:
    from providers.model_call import OpenCall


class DirectText:
    """Takes the text of one call as it comes in, for as long as there is room for it."""

    __slots__ = ("_call", "_put_now")

    def __init__(self, call: OpenCall, put_now: Callable[[ChunkType, str], bool]) -> None:
        self._call = call
        self._put_now = put_now

    def __call__(self, event: TurnEvent) -> bool:
        """Whether nobody else needs to hear of this event."""
        if type(event) is TextDelta:
            kind, text = ChunkType.CONTENT, event.text
        elif type(event) is ThinkingDelta:
            kind, text = ChunkType.THINKING, event.text
        elif type(event) is UsageUpdate:  # of some servers, one comes with every piece
            self._call.usage = event.usage
            return True
        else:
            return False
        if not (self._call.has_room(text) and self._put_now(kind, text)):
            return False
        self._call.saw_chunk(text)
        return True


def hand_over_text(events: AsyncIterator[TurnEvent], call: OpenCall, chunk_fn: ChunkFn) -> None:
    """Have the text go to `chunk_fn` by the short way, where vendor and consumers know one."""
    hand_to = getattr(events, "hand_to", None)
    if hand_to is not None and (put_now := getattr(chunk_fn, "put_now", None)) is not None:
        hand_to(DirectText(call, put_now))
