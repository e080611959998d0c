"""How values are written for the scripts and for ark's readers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends.errors import QueueError
from queue_backends.interfaces import BackendOptions, Delivery, Spent
from queue_backends.messages import (
    MAX_CHUNK_CHARS,
    Chunk,
    ChunkDraft,
    ChunkType,
    JsonObject,
    Task,
    TaskResult,
    TokenUsage,
    check_chunk_size,
)

_chunk_encoder = msgspec.json.Encoder()
_pack = msgspec.msgpack.Encoder()

SHORTEST_ARGUMENT = 512
"""Bytes. A longer text is an argument of its own: unpacking it costs the server more than an argument does."""


class ArkResult(Struct, omit_defaults=False):
    """A result as ark reads it, in ark's order of fields, then ours."""

    result: str
    error: str | msgspec.UnsetType = msgspec.UNSET
    input_tokens: int = 0
    output_tokens: int = 0
    artifacts: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    usage: TokenUsage | msgspec.UnsetType = msgspec.UNSET
    cost_usd: float | msgspec.UnsetType | None = msgspec.UNSET
    finished_at: float = 0.0
    structured: Any = msgspec.UNSET
    stop_reason: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: tuple[JsonObject, ...] | msgspec.UnsetType = msgspec.UNSET


_result_encoder = msgspec.json.Encoder()
_result_decoder = msgspec.json.Decoder(ArkResult)


class _ArkSpent(Struct):
    """What of a result is known before there is one."""

    input_tokens: int
    output_tokens: int
    usage: TokenUsage
    cost_usd: float | msgspec.UnsetType


def encode_spent(spent: Spent) -> str:
    """The fields of an entry's `spent`, as they stand in a result."""
    usage = spent.usage
    cost_usd = msgspec.UNSET if spent.cost_usd is None else spent.cost_usd
    known = _ArkSpent(usage.input_tokens or 0, usage.output_tokens or 0, usage, cost_usd)
    return _result_encoder.encode(known).decode()


def encode_result(result: TaskResult) -> str:
    """The JSON that stands in `{q}-results`."""
    return result_json(result).decode()


def result_json(result: TaskResult) -> bytes:
    """As `encode_result`."""
    usage = result.usage
    return _result_encoder.encode(
        ArkResult(
            result=result.output,
            error=result.error or msgspec.UNSET,
            input_tokens=usage.input_tokens or 0,
            output_tokens=usage.output_tokens or 0,
            artifacts=dict(sorted(result.artifacts.items())) if result.artifacts else msgspec.UNSET,
            usage=usage if usage != _NO_USAGE else msgspec.UNSET,
            cost_usd=result.cost_usd if result.cost_usd is not None else msgspec.UNSET,
            finished_at=result.finished_at,
            structured=result.structured if result.structured is not None else msgspec.UNSET,
            stop_reason=result.stop_reason or msgspec.UNSET,
            tool_calls=result.tool_calls or msgspec.UNSET,
        )
    )


def decode_result(task_id: str, data: bytes) -> TaskResult:
    """Read a result that we or an ark worker wrote. One that cannot be read becomes a result that says so."""
    try:
        ark = _result_decoder.decode(data)
    except msgspec.DecodeError as error:
        return TaskResult(task_id=task_id, error=f"the stored result cannot be read: {error}")
    if ark.usage is not msgspec.UNSET:
        usage = ark.usage
    elif ark.input_tokens or ark.output_tokens:
        usage = TokenUsage(input_tokens=ark.input_tokens, output_tokens=ark.output_tokens)
    else:
        usage = _NO_USAGE
    return TaskResult(
        task_id=task_id,
        output=ark.result,
        error=ark.error or "",
        usage=usage,
        cost_usd=None if ark.cost_usd is msgspec.UNSET else ark.cost_usd,
        finished_at=ark.finished_at,
        artifacts=ark.artifacts or {},
        structured=None if ark.structured is msgspec.UNSET else ark.structured,
        stop_reason=ark.stop_reason or "",
        tool_calls=ark.tool_calls or (),
    )


_NO_USAGE = TokenUsage()


class Fence(Struct, frozen=True, array_like=True):
    """A delivery as the scripts check it. `lane` counts from 1, as Lua does."""

    lane: int
    entry: str
    consumer: str
    deliveries: int


def token_of(fence: Fence) -> str:
    """The fencing token's text."""
    return _token(fence.lane, fence.deliveries, fence.consumer)


@functools.lru_cache(maxsize=64)
def _token(lane: int, deliveries: int, consumer: str) -> str:
    """Nearly all deliveries of a process have one and the same."""
    return f"{lane}/{deliveries}/{consumer}"


def fence_of(delivery: Delivery) -> Fence:
    """The fence that a delivery's token stands for. Raises `QueueError` for a token of another backend."""
    lane, deliveries, consumer = parts_of(delivery.token)
    return Fence(lane, delivery.entry_id, consumer, deliveries)


@functools.lru_cache(maxsize=64)
def parts_of(token: str) -> tuple[int, int, str]:
    """Lane, deliveries and consumer of a token. Raises `QueueError` for one of another backend."""
    lane, _, rest = token.partition("/")
    deliveries, _, consumer = rest.partition("/")
    if not (lane.isdigit() and deliveries.isdigit()):
        raise QueueError(f"delivery token {token!r} is not one of this backend: pass deliveries it returned")
    return int(lane), int(deliveries), consumer


def encode_chunks(task: Task, first_seq: int, drafts: Sequence[ChunkDraft]) -> list[bytes]:
    """Chunks as JSON, numbered from `first_seq`. Raises `ChunkTooLarge`."""
    encode, task_id = _chunk_encoder.encode, task.id
    encoded: list[bytes] = []
    seq = first_seq
    for draft in drafts:
        json = encode(
            Chunk(
                task_id=task_id,
                seq=seq,
                type=draft.type,
                content=draft.content,
                turn=draft.turn,
                attempt=draft.attempt,
                metadata=draft.metadata,
                is_final=draft.is_final,
            )
        )
        if len(json) > MAX_CHUNK_CHARS:
            check_chunk_size(task_id, seq, len(json.decode()))
        encoded.append(json)
        seq += 1
    return encoded


def chunk_items(
    task: Task, drafts: Sequence[ChunkDraft], encoded: Sequence[bytes], table: CallTable
) -> list[str | int]:
    """Chunks as `write_chunks` takes them: each one's JSON, and if the task names a list of ark's, its text for that,
    which may be empty."""
    if not task.stream_key:
        return [table.text(json) for json in encoded]
    items: list[str | int] = []
    for draft, json in zip(drafts, encoded, strict=True):
        items += (table.text(json), draft.content if draft.type is ChunkType.CONTENT else "")
    return items


class Holders:
    """The holders of the deliveries of one script call, as `fences` takes them: nearly all have one and the same."""

    __slots__ = ("_positions", "found")

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}
        self.found: list[tuple[int, str, int]] = []
        """Of each its lane, its consumer and the count of its deliveries."""

    def position(self, token: str) -> int:
        """Which one a token stands for, from 1. Raises `QueueError` for a token of another backend."""
        position = self._positions.get(token)
        if position is None:
            lane, deliveries, consumer = parts_of(token)
            self.found.append((lane, consumer, deliveries))
            position = self._positions[token] = len(self.found)
        return position


def keep_of(options: BackendOptions) -> tuple[int, int, int]:
    """How chunks are kept: most, ms while unfinished, ms when finished."""
    return (options.chunk_limit, round(options.unfinished_ttl_s * 1000), round(options.chunk_retention_s * 1000))


def pack(value: object) -> bytes:
    """msgpack, as the scripts unpack it. They know text but no `bytes`."""
    return _pack.encode(value)


class CallTable:
    """KEYS of one script call and its long texts, which its packed payload (ARGV[1]) names by their positions in KEYS
    and ARGV, from 1."""

    __slots__ = ("_positions", "_texts")

    def __init__(self, *fixed: str) -> None:
        self._positions = {name: position for position, name in enumerate(fixed, start=1)}
        self._texts: list[bytes] = []

    @property
    def names(self) -> list[str]:
        """KEYS."""
        return list(self._positions)

    def position(self, name: str) -> int:
        """Where `name` stands, adding it if it is new."""
        positions = self._positions
        return positions.setdefault(name, len(positions) + 1)

    def text(self, value: bytes) -> str | int:
        """What stands for a value in the payload, for `text_of` of the scripts: a short text itself; the position of a
        long one, or of one that is no UTF-8."""
        if len(value) < SHORTEST_ARGUMENT:
            with contextlib.suppress(UnicodeDecodeError):
                return value.decode()
        self._texts.append(value)
        return len(self._texts) + 1

    def arguments(self, payload: object) -> list[bytes]:
        """ARGV: the payload, then the long texts."""
        return [pack(payload), *self._texts]
