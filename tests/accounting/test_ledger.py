"""The ledger of usage records, read, grouped, exported, and carried elsewhere: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from queue_backends import Backend, BackendUnavailable, CallOutcome, TokenUsage, UsageRecord, open_backend
from tests.postgresql_servers import PostgresqlServer, embedded_programs
from worker.errors import BadSetting
from worker.ledger.export import export, format_of
from worker.ledger.grouping import FIELDS, grouped
from worker.ledger.reading import Span, usage_records
from worker.ledger.sinks.sink import SinkUnavailable, open_sink
from worker.ledger.streaming import UsageStream
from worker.usage import UsageLedger

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC).timestamp()


def _record(number: int, **changes: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "id": f"t{number}:0:0",
        "task_id": f"t{number}",
        "provider": "p",
        "model": "m",
        "usage": TokenUsage(input_tokens=100, output_tokens=10),
        "outcome": CallOutcome.COMPLETED,
        "started_at": NOON + number,
        "duration_ms": 5,
        "cost_usd": 0.5,
        **changes,
    }
    return UsageRecord(**values)


async def _write(backend: Backend, records: Sequence[UsageRecord]) -> None:
    ledger = UsageLedger()
    await backend.state.append_once([ledger.log_record(record) for record in records])


async def _each(records: Sequence[UsageRecord]) -> AsyncIterator[UsageRecord]:
    for record in records:
        yield record


@pytest.fixture
async def backend(queue_url: str) -> AsyncIterator[Backend]:
    async with await open_backend(queue_url) as opened:
        yield opened


async def test_a_span_is_read_in_order_over_many_pages(backend: Backend) -> None:
    """However many records there are, those of the span come, in the order they were written."""
    records = [_record(number, agent="a" if number % 2 else "b") for number in range(2500)]
    for start in range(0, 2500, 500):
        await _write(backend, records[start : start + 500])
    span = Span(since=NOON + 100, until=NOON + 2400, where={"agent": "a*"})
    found = [record async for record in usage_records(backend.state, span)]
    assert found == [record for record in records[100:2400] if record.agent == "a"]


async def test_an_unreadable_record_is_left_out_and_named(backend: Backend) -> None:
    """One bad record does not hide the others."""
    ledger = UsageLedger()
    bad = ledger.log_record(_record(1))
    await backend.state.append_once([type(bad)(log=bad.log, id="bad", value=b"{", keep_s=60), bad])
    with capture_logs() as lines:
        assert [record.id async for record in usage_records(backend.state)] == ["t1:0:0"]
    assert [line["id"] for line in lines] == ["bad"]


RECORDS = st.lists(
    st.builds(
        _record,
        st.integers(0, 10_000),
        agent=st.sampled_from(["", "a", "b"]),
        tenant=st.sampled_from(["", "x"]),
        outcome=st.sampled_from(list(CallOutcome)),
        cost_usd=st.none() | st.integers(0, 100).map(float),
        usage=st.builds(TokenUsage, input_tokens=st.none() | st.integers(0, 9), output_tokens=st.integers(0, 9)),
    ),
    max_size=30,
)


@given(RECORDS, st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3, unique=True))
def test_groups_add_up_to_everything(records: list[UsageRecord], by: list[str]) -> None:
    """Whatever is grouped by, each record is in one group, and the sums are those of all records."""
    groups = asyncio.run(grouped(_each(records), by))
    assert len({group.key for group in groups}) == len(groups)
    assert sum(group.calls for group in groups) == len(records)
    assert sum(group.cost_usd for group in groups) == sum(record.cost_usd or 0 for record in records)
    assert sum(group.unpriced_calls for group in groups) == sum(record.cost_usd is None for record in records)
    assert sum(group.input_tokens for group in groups) == sum(record.usage.input_tokens or 0 for record in records)


async def test_times_come_in_order_and_the_rest_by_cost() -> None:
    """Days run forward; within a day the dearest agent is first."""
    day = 86_400
    records = [
        _record(0, agent="cheap", started_at=NOON, cost_usd=0.1),
        _record(1, agent="dear", started_at=NOON, cost_usd=9.0),
        _record(2, agent="early", started_at=NOON - day, cost_usd=0.01),
    ]
    groups = await grouped(_each(records), ["day", "agent"])
    assert [group.key for group in groups] == [("2026-11-20", "early"), ("2026-11-21", "dear"), ("2026-11-21", "cheap")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
async def test_an_export_has_every_record_and_tells_unknown_from_zero(tmp_path: Path, kind: str) -> None:
    """All three formats hold the same rows; what is not known is empty or null; the type of a column is the same in
    every row."""
    usage = TokenUsage(input_tokens=7, output_tokens=0)
    records = [_record(1, usage=usage, cost_usd=None), _record(2, tenant='a "b", c\nd')]
    path = tmp_path / f"usage.{kind}"
    assert await export(_each(records), path, format_of(path)) == 2
    if kind == "csv":
        rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(path.read_text())))
        assert (rows[0]["output_tokens"], rows[0]["cost_usd"]) == ("0", "")
    else:
        lines = path.read_text().splitlines() if kind == "jsonl" else []
        rows = [json.loads(line) for line in lines] or pyarrow.parquet.read_table(path).to_pylist()
        assert (rows[0]["output_tokens"], rows[0]["cost_usd"]) == (0, None)
    assert [row["id"] for row in rows] == ["t1:0:0", "t2:0:0"]
    assert rows[1]["tenant"] == 'a "b", c\nd'
    assert rows[0]["started_at"] == "2026-11-21T12:00:01.000+00:00"
    assert list(tmp_path.iterdir()) == [path]


async def test_a_spreadsheet_runs_nothing_of_an_export(tmp_path: Path) -> None:
    """A name that looks like a formula is text in the CSV."""
    path = tmp_path / "usage.csv"
    await export(_each([_record(1, tenant="=cmd|'/C calc'!A0")]), path, "csv")
    [row] = csv.DictReader(io.StringIO(path.read_text()))
    assert row["tenant"].startswith("'=")


async def test_an_export_that_breaks_off_leaves_the_old_file(tmp_path: Path) -> None:
    """A file appears whole or not at all."""
    path = tmp_path / "usage.jsonl"
    path.write_text("old")

    async def broken() -> AsyncIterator[UsageRecord]:
        yield _record(1)
        raise BackendUnavailable("gone")

    with pytest.raises(BackendUnavailable):
        await export(broken(), path, "jsonl")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BadSetting, match="cannot write"):
        await export(_each([]), tmp_path / "no" / "such.csv", "csv")


# Sinks

Ids = Callable[[], Awaitable[list[str]]]


@pytest.fixture(params=["file", "redis", "postgresql"])
def sink(
    request: pytest.FixtureRequest, tmp_path: Path, queue_url: str, stream: str
) -> tuple[str, Callable[[], list[str]]]:
    """A place for records, and what tells which ids are there, in order."""
    if request.param == "file":
        path = tmp_path / "usage.jsonl"
        return f"file://{path}", lambda: [json.loads(line)["id"] for line in path.read_text().splitlines()]
    if request.param == "redis":
        address = queue_url.partition("?")[0]
        with redis.Redis.from_url(address) as client:
            client.delete(f"{stream}-sink", f"{stream}-sink:cursor")
        return f"{address}?stream={stream}-sink", lambda: _stream_ids(address, f"{stream}-sink")
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    url, table = server.url(), f"usage_{random.randrange(10**9)}"
    address = url.partition("?")[0]
    return f"{address}?table={table}", lambda: _table_ids(address, table)


def _stream_ids(address: str, stream: str) -> list[str]:
    with redis.Redis.from_url(address) as client:
        entries: Any = client.xrange(stream)
        return [fields[b"id"].decode() for _, fields in entries]


def _table_ids(address: str, table: str) -> list[str]:
    with psycopg.connect(address) as connection:
        return [row[0] for row in connection.execute(f"SELECT id FROM {table}".encode()).fetchall()]


async def test_a_sink_gets_every_record_once_and_goes_on_where_it_was(
    backend: Backend, sink: tuple[str, Callable[[], list[str]]]
) -> None:
    """Three streams one after the other carry over what each found, and nothing again."""
    url, ids = sink
    for part in range(3):
        await _write(backend, [_record(number) for number in range(part * 700, part * 700 + 700)])
        stream = UsageStream(backend.state, lambda: open_sink(url))
        await stream.run(until_caught_up=True)
        assert stream.sent == 700
    assert sorted(ids()) == sorted(f"t{number}:0:0" for number in range(2100))


async def test_streams_that_are_killed_again_and_again_lose_and_double_nothing(
    backend: Backend, queue_url: str, sink: tuple[str, Callable[[], list[str]]]
) -> None:
    """kill -9 at any moment, while records come in: in the end each is there once."""
    url, ids = sink
    chance = random.Random(7)

    async def write() -> None:
        for start in range(0, 6000, 100):
            await _write(backend, [_record(number) for number in range(start, start + 100)])
            await asyncio.sleep(0.02)

    command = [sys.executable, "-m", "worker.cli", "usage", "stream", url, "--queue", queue_url, "--every", "50ms"]
    writing = asyncio.create_task(write())
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 0.6 + chance.random() * 0.8)
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.wait)
    await writing
    await UsageStream(backend.state, lambda: open_sink(url)).run(until_caught_up=True)
    assert Counter(ids()) == Counter(f"t{number}:0:0" for number in range(6000))


async def test_two_streams_to_the_same_place_do_not_double(
    backend: Backend, sink: tuple[str, Callable[[], list[str]]]
) -> None:
    """A second one by mistake does no harm: a file refuses it, others take each step from whoever is first."""
    url, ids = sink
    await _write(backend, [_record(number) for number in range(3000)])
    streams = [UsageStream(backend.state, lambda: open_sink(url)) for _ in range(2)]
    ends = await asyncio.gather(*(each.run(until_caught_up=True) for each in streams), return_exceptions=True)
    assert all(end is None or isinstance(end, BadSetting) for end in ends)
    assert Counter(ids()) == Counter(f"t{number}:0:0" for number in range(3000))


async def test_a_sink_that_is_away_is_waited_for(backend: Backend, tmp_path: Path) -> None:
    """The stream goes on when the sink is back, and says in the log what it waits for."""
    await _write(backend, [_record(1)])
    tries = 0

    async def open_later() -> Any:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise SinkUnavailable("connection refused")
        return await open_sink(f"file://{tmp_path}/usage.jsonl")

    with capture_logs() as lines:
        await UsageStream(backend.state, open_later).run(until_caught_up=True)
    assert [line["error"] for line in lines] == ["connection refused"] * 2
    assert (tmp_path / "usage.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "is no sink: use file:///path.jsonl"),
        ("file:///", "names no file"),
        ("file://host/x.jsonl", "names no file"),
        ("file:///dev/null", "cannot write /dev/null"),
        ("redis://h?maxlen=many", "maxlen=many"),
        ("postgresql://h/db?table=a;drop", "table=a;drop"),
    ],
)
async def test_an_address_that_is_no_sink_is_refused_with_what_would_be_one(url: str, said: str) -> None:
    """The message says what is wrong with it, and shows no password."""
    with pytest.raises(BadSetting, match=said):
        await open_sink(url.replace("//h", "//user:secret@h"))


async def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """A file with lines and no cursor beside it is not written over."""
    path = tmp_path / "notes.jsonl"
    path.write_text("mine\n")
    with pytest.raises(BadSetting, match="choose another file"):
        await open_sink(f"file://{path}")
    assert path.read_text() == "mine\n"


async def test_what_a_crash_wrote_beyond_the_cursor_comes_again_once(backend: Backend, tmp_path: Path) -> None:
    """Lines that reached the file when the cursor did not are cut off, whole ones and a half one."""
    path = tmp_path / "usage.jsonl"
    await _write(backend, [_record(1)])
    stream = UsageStream(backend.state, lambda: open_sink(f"file://{path}"))
    await stream.run(until_caught_up=True)
    with path.open("a") as file:
        file.write('{"id": "t2:0:0"}\n{"id": "t')
    await _write(backend, [_record(2), _record(3)])
    await stream.run(until_caught_up=True)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["t1:0:0", "t2:0:0", "t3:0:0"]


async def test_a_full_disk_is_waited_for_and_breaks_no_line(backend: Backend, tmp_path: Path) -> None:
    """What did not fit is cut off and comes again; the stream goes on by itself when there is room."""
    path = tmp_path / "usage.jsonl"
    await _write(backend, [_record(number) for number in range(300)])
    stream = UsageStream(backend.state, lambda: open_sink(f"file://{path}"), every_s=0.05)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with capture_logs() as lines:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
        try:
            streaming = asyncio.create_task(stream.run(until_caught_up=True))
            async with asyncio.timeout(30):
                while not lines and not streaming.done():
                    await asyncio.sleep(0.01)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        async with asyncio.timeout(30):
            await streaming
    assert "cannot write" in lines[0]["error"]
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [f"t{n}:0:0" for n in range(300)]


async def test_a_place_that_holds_another_queues_usage_is_refused(
    backend: Backend, sink: tuple[str, Callable[[], list[str]]]
) -> None:
    """A cursor of one ledger says nothing in another: going on there would leave records out without a word."""
    url, ids = sink
    await _write(backend, [_record(1)])
    await UsageStream(backend.state, lambda: open_sink(url)).run(until_caught_up=True)
    async with await open_backend("memory://") as other:
        await _write(other, [_record(2)])
        with pytest.raises(BadSetting, match="usage of another queue"):
            await UsageStream(other.state, lambda: open_sink(url)).run(until_caught_up=True)
    assert ids() == ["t1:0:0"]


async def test_a_stream_that_was_away_for_longer_than_records_are_kept_says_so(
    backend: Backend, tmp_path: Path
) -> None:
    """Nobody can tell what has gone meanwhile, but that something may have."""
    await _write(backend, [_record(1)])
    url = f"file://{tmp_path}/usage.jsonl"
    with capture_logs() as lines:
        for kept_s in (3600.0, 3600.0, 0.0):
            await UsageStream(backend.state, lambda: open_sink(url), kept_s=kept_s).run(until_caught_up=True)
    assert len(lines) == 1
    assert "may have gone from the ledger unread" in lines[0]["event"]


async def test_texts_that_postgresql_cannot_hold_do_not_stop_the_stream(
    backend: Backend, postgresql_server: PostgresqlServer
) -> None:
    """A NUL is left out of a name; nothing else waits behind it for ever."""
    address, table = postgresql_server.url().partition("?")[0], f"usage_{random.randrange(10**9)}"
    await _write(backend, [_record(1, tenant="a\0b"), _record(2)])
    async with asyncio.timeout(30):
        await UsageStream(backend.state, lambda: open_sink(f"{address}?table={table}")).run(until_caught_up=True)
    assert sorted(_table_ids(address, table)) == ["t1:0:0", "t2:0:0"]


async def test_a_table_of_another_shape_is_refused_not_waited_for(
    backend: Backend, postgresql_server: PostgresqlServer
) -> None:
    """That mends nothing by itself."""
    address, table = postgresql_server.url().partition("?")[0], f"mine_{random.randrange(10**9)}"
    with psycopg.connect(address) as connection:
        connection.execute(f"CREATE TABLE {table} (id text)".encode())
    await _write(backend, [_record(1)])
    with pytest.raises(BadSetting, match="started_at"):
        async with asyncio.timeout(30):
            await UsageStream(backend.state, lambda: open_sink(f"{address}?table={table}")).run(until_caught_up=True)


async def test_a_stream_goes_on_when_its_database_was_restarted(backend: Backend, tmp_path: Path) -> None:
    """A connection that breaks in the middle is replaced, and nothing is there twice."""
    programs = embedded_programs()
    assert programs is not None
    with PostgresqlServer(programs) as server:
        address = server.url().partition("?")[0]
        stream = UsageStream(backend.state, lambda: open_sink(address), every_s=0.05)
        streaming = asyncio.create_task(stream.run())
        for start in (0, 100):
            await _write(backend, [_record(number) for number in range(start, start + 100)])
            async with asyncio.timeout(30):
                while stream.sent < start + 100:
                    await asyncio.sleep(0.02)
            if not start:
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
        streaming.cancel()
        await asyncio.wait([streaming])
        assert len(_table_ids(address, "shoal_usage")) == 200


@pytest.mark.parametrize(
    "url",
    [
        "redis://:se/cret@host:6379",
        "redis://:secret@host:port",
        "rediss://me:se?cret@host",
        "postgresql://me:se/cret@host/db",
        "postgresql://me:secret@[::1/db",
        "postgresql://me:secret@host/db?no_such=option",
    ],
)
async def test_no_message_shows_a_part_of_a_password(url: str) -> None:
    """Addresses that cannot be read are named without what may be secret in them."""
    with pytest.raises((BadSetting, ValueError, SinkUnavailable)) as refusal:
        await open_sink(url)
    assert isinstance(refusal.value, BadSetting | SinkUnavailable)
    assert "cret" not in str(refusal.value)
