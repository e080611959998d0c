"""What a task's chunks are told as, whatever starts over on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_backends import Chunk, ChunkType
from worker.gateway.anthropic_api.answer import message_sse
from worker.gateway.anthropic_api.message_events import MessageEvents, MessageForm
from worker.gateway.ingress.narration import Ended, Event, Narrator, Said, Thought, Withdrawn
from worker.gateway.ingress.transcript import Transcript
from worker.gateway.openai_api.chat_answer import ChatForm, completion_events
from worker.gateway.openai_api.response_events import ResponseEvents
from worker.gateway.openai_api.response_store import ResponseRecord
from worker.gateway.openai_api.response_stream import response_sse
from worker.gateway.problem import ErrorStyle

TEXTS = st.text(alphabet="ab ", min_size=1, max_size=6)
PIECES = st.lists(st.tuples(st.booleans(), TEXTS), min_size=1, max_size=4)
"""Of one attempt: reasoning or not, and what."""
TURNS = st.lists(st.lists(PIECES, min_size=1, max_size=3), min_size=1, max_size=3)
"""Turn -> its attempts; the last one counts."""


def chunks_of(turns: list[list[list[tuple[bool, str]]]]) -> list[Chunk]:
    """A stream in which turns start over, with a tool call between two of them."""
    drafts: list[tuple[ChunkType, str, int, int]] = []
    for number, attempts in enumerate(turns):
        if number:
            drafts.append((ChunkType.TOOL_CALL, "look_up", number - 1, len(turns[number - 1]) - 1))
        for attempt, pieces in enumerate(attempts):
            for is_thought, text in pieces:
                drafts.append((ChunkType.THINKING if is_thought else ChunkType.CONTENT, text, number, attempt))
    chunks = [
        Chunk(task_id="1-0", seq=seq, type=kind, content=text, turn=turn, attempt=attempt)
        for seq, (kind, text, turn, attempt) in enumerate(drafts)
    ]
    metadata = {"stop_reason": "end_turn", "usage": {"input_tokens": 3}}
    final = Chunk(task_id="1-0", seq=len(chunks), type=ChunkType.DONE, metadata=metadata, is_final=True)
    return [*chunks, final]


def told(chunks: list[Chunk]) -> list[Event]:
    """Everything that is told of them."""
    narrator = Narrator()
    return [event for chunk in chunks for event in narrator.events(chunk)]


@given(TURNS)
def test_what_holds_is_what_the_last_attempts_said(turns: list[list[list[tuple[bool, str]]]]) -> None:
    """Whoever drops what is withdrawn has the text and the reasoning of each turn's last attempt, and nothing else."""
    transcript = Transcript()
    for event in told(chunks_of(turns)):
        transcript.add(event)
    for number, attempts in enumerate(turns):
        for is_thought in (False, True):
            said = "".join(
                stretch.text
                for stretch in transcript.stretches
                if stretch.turn == number and stretch.is_thought is is_thought
            )
            assert said == "".join(text for thought, text in attempts[-1] if thought is is_thought)
    assert isinstance(transcript.end, Ended)


@given(TURNS)
def test_same_words_again_withdraw_nothing(turns: list[list[list[tuple[bool, str]]]]) -> None:
    """An attempt that says the same is told once, wherever the first one broke off."""
    again = [[pieces[: len(pieces) // 2 + 1], pieces] for [pieces, *_] in turns]
    events = told(chunks_of(again))
    assert not any(isinstance(event, Withdrawn) for event in events)
    once = told(chunks_of([[pieces] for [pieces, *_] in turns]))
    for kind in (Said, Thought):
        assert "".join(e.text for e in events if isinstance(e, kind)) == "".join(
            e.text for e in once if isinstance(e, kind)
        )


@given(TURNS, st.booleans())
def test_responses_number_their_events_the_same_each_time(
    turns: list[list[list[tuple[bool, str]]]], background: bool
) -> None:
    """Resuming rests on this: two gateways derive the same events from the same chunks, numbered without a gap, and
    every item that is opened is closed."""
    record = ResponseRecord(task_id="1-0", created_at=1, model="m", echo={}, background=background)

    def events() -> list[dict[str, Any]]:
        building = ResponseEvents(record)
        happened = list(building.begin())
        for event in told(chunks_of(turns)):
            happened += building.add(event)
        return happened

    first = events()
    assert first == events()
    assert [event["sequence_number"] for event in first] == list(range(len(first)))
    opened = [event["output_index"] for event in first if event["type"] == "response.output_item.added"]
    closed = [event["output_index"] for event in first if event["type"] == "response.output_item.done"]
    assert opened == closed
    assert all(after > before for before, after in pairwise(opened))
    assert first[-1]["type"] == "response.completed"
    output: Any = first[-1]["response"]
    said = [item["content"][0]["text"] for item in output["output"] if item["type"] == "message"]
    last = "".join(text for *_, pieces in turns for is_thought, text in pieces if not is_thought)
    assert "".join(said) == last  # what was withdrawn was told, and is no part of the response


@given(TURNS)
def test_messages_have_what_holds(turns: list[list[list[tuple[bool, str]]]]) -> None:
    """The same for Anthropic's form: blocks in order, opened and closed under their index, and the last attempts."""
    building = MessageEvents(MessageForm(task_id="1-0", model="m", shows_thinking=True))
    happened = list(building.begin())
    for event in told(chunks_of(turns)):
        happened += building.add(event)
    opened = [event["index"] for event in happened if event["type"] == "content_block_start"]
    closed = [event["index"] for event in happened if event["type"] == "content_block_stop"]
    assert opened == closed == list(range(len(opened)))
    said = "".join(block["text"] for block in building.message()["content"] if block["type"] == "text")
    assert said == "".join(text for *_, pieces in turns for is_thought, text in pieces if not is_thought)


async def coming(chunks: list[Chunk]) -> AsyncGenerator[Chunk, None]:
    """Chunks as a task has them."""
    for chunk in chunks:
        yield chunk


def asked(style: ErrorStyle) -> Any:
    """As much of a call as a stream looks at."""
    state = SimpleNamespace(operation=SimpleNamespace(style=style), request_id="req_1")
    return SimpleNamespace(request=SimpleNamespace(state=state))


async def test_streams_that_can_take_nothing_back_end_with_an_error() -> None:
    """An answer that begins anew with other words is no answer any more, where its first words cannot be withdrawn."""
    chunks = chunks_of([[[(False, "one two")], [(False, "other words")]]])
    chat = ChatForm(task_id="1-0", model="m", created=1)
    events = [event async for event in completion_events(asked(ErrorStyle.OPENAI), chat, coming(chunks))]
    assert msgspec.json.decode(events[-1].data)["error"]["code"] == "answer_began_anew"
    message = MessageForm(task_id="1-0", model="m")
    told_events = [event async for event in message_sse(asked(ErrorStyle.ANTHROPIC), message, coming(chunks))]
    assert told_events[-1].event == "error"
    assert "began anew" in msgspec.json.decode(told_events[-1].data)["error"]["message"]


async def chat_events(chunks: list[Chunk]) -> list[Any]:
    """A streamed completion: its pieces."""
    form = ChatForm(task_id="1-0", model="m", created=1)
    events = [event async for event in completion_events(asked(ErrorStyle.OPENAI), form, coming(chunks))]
    return [event.data if event.data == "[DONE]" else msgspec.json.decode(event.data) for event in events]


@pytest.mark.parametrize("before", [[], [[[(False, "One moment.")]]]])
async def test_reasoning_that_begins_anew_ends_no_stream(before: Any) -> None:
    """A model that is cut off while it thinks seldom thinks the same again. As long as no text of that turn was told,
    the answer holds, whatever was said in the turns before."""
    chunks = chunks_of([*before, [[(True, "so and so")], [(True, "other thoughts"), (False, "Yes.")]]])
    pieces = await chat_events(chunks)
    assert pieces[-1] == "[DONE]"
    said = [piece["choices"][0]["delta"].get("content") for piece in pieces[:-1]]
    assert "".join(filter(None, said)) == ("One moment.\n\nYes." if before else "Yes.")
    for shows_thinking in (False, True):
        form = MessageForm(task_id="1-0", model="m", shows_thinking=shows_thinking)
        told_events = [event async for event in message_sse(asked(ErrorStyle.ANTHROPIC), form, coming(chunks))]
        assert told_events[-1].event == "message_stop"


@pytest.mark.parametrize("later", [[], [[[(True, "on")]]]])
async def test_text_that_began_anew_ends_the_stream_in_any_later_turn(later: Any) -> None:
    """Text of a turn after the one that starts over does not hold either."""
    first = [[(True, "so")], [(True, "other"), (False, "no")]]
    chunks = [
        Chunk(task_id="1-0", seq=0, type=ChunkType.THINKING, content="so", turn=0, attempt=0),
        Chunk(task_id="1-0", seq=1, type=ChunkType.CONTENT, content="told", turn=1, attempt=0),
        *[msgspec.structs.replace(chunk, seq=chunk.seq + 2) for chunk in chunks_of([first[1:], *later])],
    ]
    chunks[2:] = [msgspec.structs.replace(chunk, attempt=1) if not chunk.is_final else chunk for chunk in chunks[2:]]
    pieces = await chat_events(chunks)
    assert pieces[-1]["error"]["code"] == "answer_began_anew"


def test_long_text_that_comes_again_is_compared_piece_by_piece() -> None:
    """Each piece is compared with its own place in what was told: nothing is said twice, and the rest follows."""
    words = [f"word {number} " for number in range(2000)]
    again = [[(False, word) for word in words[:1500]], [(False, word) for word in words]]
    said = [event.text for event in told(chunks_of([again])) if isinstance(event, Said)]
    assert "".join(said) == "".join(words)


async def test_response_that_breaks_off_says_so_and_can_be_resumed() -> None:
    """A gateway that stops tells that the response is not whole, under the number of the last event: whoever resumes
    after that number misses nothing."""
    record = ResponseRecord(task_id="1-0", created_at=1, model="m", echo={}, background=True)
    chunks = chunks_of([[[(False, "one"), (True, "two"), (False, "three")]]])

    async def numbers(given: list[Chunk], after: int = -1) -> list[tuple[str, int]]:
        sent = response_sse(asked(ErrorStyle.OPENAI), record, coming(given), starting_after=after)
        return [(event.event, msgspec.json.decode(event.data)["sequence_number"]) async for event in sent]

    *cut, (last, number) = await numbers(chunks[:-2])
    assert last == "error"
    assert cut + await numbers(chunks, number) == await numbers(chunks)
