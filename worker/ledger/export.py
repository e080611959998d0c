"""Writes usage records into a file: CSV, JSON lines or Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec

from queue_backends import UsageRecord
from worker.errors import BadSetting
from worker.ledger.rows import COLUMNS, Value, row_of

_ROW_GROUP = 10_000


class RowWriter(Protocol):
    """Takes rows, and writes what it holds back when it is closed."""

    def write(self, row: dict[str, Value]) -> None:
        """Write one row."""
        ...

    def close(self) -> None:
        """Write the rest. The file stays open."""
        ...


class CsvRows:
    """Comma-separated, one header line; what is not known is empty. Texts that a spreadsheet would run are quoted with
    an apostrophe."""

    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self._rows = csv.DictWriter(self._text, list(COLUMNS), lineterminator="\n")
        self._rows.writeheader()

    def write(self, row: dict[str, Value]) -> None:
        """Write one line."""
        self._rows.writerow({name: _harmless(value) for name, value in row.items()})

    def close(self) -> None:
        """Write what is held back."""
        self._text.flush()
        self._text.detach()


class JsonRows:
    """One JSON object a line; what is not known is null."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._encode = msgspec.json.Encoder().encode

    def write(self, row: dict[str, Value]) -> None:
        """Write one line."""
        self._file.write(self._encode(row) + b"\n")

    def close(self) -> None:
        """Nothing is held back."""
        self._file.flush()


class ParquetRows:
    """Apache Parquet, compressed with zstd, in row groups of ten thousand. Needs the extra `parquet`."""

    def __init__(self, file: BinaryIO) -> None:
        arrow, parquet = _pyarrow()
        self._arrow = arrow
        types = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
        self._schema = arrow.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Value]] = []

    def write(self, row: dict[str, Value]) -> None:
        """Keep one row until the group is full."""
        self._rows.append(row)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write the last group and the file's index."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


FORMATS: Mapping[str, Callable[[BinaryIO], RowWriter]] = {
    "csv": CsvRows,
    "jsonl": JsonRows,
    "parquet": ParquetRows,
}


def format_of(path: Path | None) -> str:
    """The format that a file's name asks for; JSON lines for any other name, and for none."""
    suffix = path.suffix.lower().removeprefix(".") if path else ""
    return suffix if suffix in FORMATS else "jsonl"


async def export(records: AsyncIterator[UsageRecord], path: Path | None, kind: str) -> int:
    """Write all records and return how many there were. Without a path they go to standard output.

    The file appears, or takes the place of another of its name, only when it is whole. Raises `BadSetting` if it cannot
    be written, or for Parquet without the extra.
    """
    count = 0
    with _target(path) as file:
        writer = FORMATS[kind](file)
        async for record in records:
            writer.write(row_of(record))
            count += 1
        writer.close()
    return count


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[BinaryIO]:
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = path.with_name(f"{path.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise BadSetting(f"cannot write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)


def _harmless(value: Value) -> Value:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # 40 MB, and 0.2 s to import
        import pyarrow.parquet
    except ImportError as error:
        raise BadSetting("Parquet needs pyarrow: pip install 'shoal[parquet]', or choose csv or jsonl") from error
    return pyarrow, pyarrow.parquet
