"""What an agent has said, put together from the events of its narration."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from msgspec import Struct

from queue_backends import Chunk
from worker.gateway.ingress.narration import Ended, Event, Failed, Said, Thought, Withdrawn
from worker.gateway.ingress.telling import told
from worker.gateway.operation import Call


class Stretch(Struct):
    """Text, or reasoning, that was told in one go."""

    turn: int
    is_thought: bool
    pieces: list[str]
    after_tools: bool = False
    """A tool of the agent's own was called before it."""

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self.pieces)


class Transcript:
    """Takes events in order; what was withdrawn is gone from it."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.end: Ended | Failed | None = None

    def add(self, event: Event) -> None:
        """Put one event where it belongs."""
        match event:
            case Said() | Thought():
                if event.begins or not self.stretches:
                    is_after = isinstance(event, Said) and event.after_tools
                    self.stretches.append(Stretch(event.turn, isinstance(event, Thought), [], is_after))
                self.stretches[-1].pieces.append(event.text)
            case Withdrawn(turn=turn):
                self.stretches = [stretch for stretch in self.stretches if stretch.turn < turn]
            case Ended() | Failed():
                self.end = event

    @property
    def text(self) -> str:
        """All that was said; what was said before the agent used its tools stands in a paragraph of its own."""
        return "".join(self._texts())

    @property
    def reasoning(self) -> str:
        """All that was thought."""
        return "\n\n".join(stretch.text for stretch in self.stretches if stretch.is_thought)

    def _texts(self) -> Iterator[str]:
        is_first = True
        for stretch in self.stretches:
            if not stretch.is_thought:
                yield stretch.text if is_first or not stretch.after_tools else f"\n\n{stretch.text}"
                is_first = False


async def transcribed(call: Call, chunks: AsyncGenerator[Chunk, None]) -> Transcript:
    """The whole of a run, once it has ended. Without an end, the gateway is shutting down."""
    transcript = Transcript()
    async with aclosing(told(call, chunks)) as events:
        async for event in events:
            transcript.add(event)
    return transcript
