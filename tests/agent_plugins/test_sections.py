"""The stream of a message in sections: order, what is known to be out, and what broke off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from queue_backends import ChunkType, Delivery, LogRecord, Task
from worker.agent_plugins.sections import Sections
from worker.journal import Journal, PluginShown, _decode

DELIVERY = Delivery(task=Task(prompt="go", id="t"), entry_id="e", token="k", next_attempt=10)
CONTENT, THINKING = ChunkType.CONTENT, ChunkType.THINKING


class Wire:
    """What would be written: (turn, attempt, text) for chunks, the number of records for a store."""

    def __init__(self) -> None:
        self.turn = self.attempt = 0
        self.written: list[Any] = []
        self.noted: list[LogRecord] = []

    async def chunk(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        self.written.append((self.turn, self.attempt, content))

    def note(self, *records: LogRecord) -> None:
        self.noted += records

    @property
    def has_news(self) -> bool:
        return bool(self.noted)

    async def store(self) -> None:
        self.written += [("stored", entry.section) for entry in map(self.entry, self.noted)]
        self.noted.clear()

    def entry(self, record: LogRecord) -> PluginShown:
        entry = _decode(record.value)
        assert isinstance(entry, PluginShown)
        return entry


def sections_on(wire: Wire, *, shown: Counter[str] | None = None, first: int = 0, again: bool = False) -> Sections:
    """Sections that write there."""
    journal = Journal(unfinished_s=1, finished_s=1)
    chunks: Any = wire
    return Sections(chunks, wire.chunk, journal, DELIVERY, shown=shown or Counter(), first=first, is_taken_over=again)


async def test_a_section_is_known_to_be_out_before_the_next_one_begins() -> None:
    """Given something of the plugin's own, a model's text and its own again, then each is stored as out before the
    first chunk of the next: at any moment at most one section may have been shown in part."""
    wire = Wire()
    sections = sections_on(wire)
    await sections.say(CONTENT, "a")
    await sections.say(CONTENT, "b")
    told = sections.begin("t1.0", 10)
    await sections.add(told, CONTENT, "c", None)
    assert wire.written[-1] == (1, 10, "c"), "what the plugin said before is closed by it"
    told.is_closed = True
    await sections.say(CONTENT, "d")
    await sections.finish()
    assert wire.written == [(0, 10, "a"), (0, 10, "b"), ("stored", 0), (1, 10, "c"), ("stored", 1), (2, 10, "d")]


async def test_what_comes_at_the_same_time_is_shown_one_after_the_other() -> None:
    """Given a model's text that is under way, when a second one and the plugin itself speak, then these wait, in the
    order in which they began; a turn's number never goes back."""
    wire = Wire()
    sections = sections_on(wire)
    first, second = sections.begin("t1.0", 10), sections.begin("t2.0", 10)
    await sections.add(second, CONTENT, "2", None)
    await sections.say(CONTENT, "own")
    await sections.add(first, CONTENT, "1", None)
    assert wire.written == [(0, 10, "1")]
    first.is_closed = True
    await sections.add(second, CONTENT, "2", None)
    second.is_closed = True
    await sections.finish()
    texts = [each for each in wire.written if each[0] != "stored"]
    assert texts == [(0, 10, "1"), (1, 10, "2"), (1, 10, "2"), (2, 10, "own")]


async def test_what_is_out_is_not_shown_again_whatever_its_pieces() -> None:
    """Given sections that an earlier worker has shown, then the same text in other pieces is left out, another text is
    not, and numbers go on behind those that were used."""
    wire = Wire()
    shown = Counter(await labels_of((CONTENT, "hello"), (THINKING, "hm")))
    sections = sections_on(wire, shown=shown, first=2, again=True)
    await sections.say(CONTENT, "hello")
    assert wire.written == []
    sections.cut()
    await sections.say(THINKING, "h")
    await sections.say(THINKING, "m")
    sections.cut()
    await sections.say(CONTENT, "new")
    assert await sections.finish() == "hellonew"
    assert wire.written == [(2, 10, "new")]


async def labels_of(*said: tuple[ChunkType, str]) -> list[str]:
    """What sections of the plugin's own are recognised by."""
    wire, labels = Wire(), list[str]()
    for kind, text in said:
        sections = sections_on(wire)
        await sections.say(kind, text)
        await sections.finish()
        labels += [wire.entry(record).label for record in wire.noted]
        wire.noted.clear()
    return labels


async def test_a_model_that_broke_off_is_dropped_once_something_follows() -> None:
    """Given a model's text that ends in an error, then consumers keep it if nothing follows, and drop it as soon as
    something does, by a higher attempt of the same turn."""
    wire = Wire()
    sections = sections_on(wire)
    told = sections.begin("t1.0", 10)
    await sections.add(told, CONTENT, "half", None)
    sections.abandon(told)
    await sections.advance()
    assert wire.written == [(0, 10, "half")]
    await sections.say(CONTENT, "other")
    texts = [each for each in wire.written if each[0] != "stored"]
    assert texts == [(0, 10, "half"), (0, 11, ""), (1, 10, "other")]


async def test_what_a_dead_worker_may_have_shown_is_dropped_if_nothing_takes_its_place() -> None:
    """Given a message that was taken over, when the plugin says nothing this time, then consumers are told to drop what
    may have been shown of the section that was under way."""
    wire = Wire()
    assert await sections_on(wire, first=3, again=True).finish() == ""
    assert wire.written == [(3, 10, "")]


async def test_a_muted_stream_says_nothing() -> None:
    """After the answer is complete nothing is written any more, of no section."""
    wire = Wire()
    sections = sections_on(wire)
    told = sections.begin("t1.0", 10)
    await sections.say(CONTENT, "before")
    sections.mute()
    await sections.add(told, CONTENT, "late", None)
    await sections.say(CONTENT, "late")
    await sections.say_alone("c1", ChunkType.TOOL_CALL, "late", {})
    assert await sections.finish() == "before"
    assert [each for each in wire.written if each[0] != "stored"] == [(0, 10, "before")]
