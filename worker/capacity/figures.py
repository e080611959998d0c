"""The costs that the capacity model calculates with, as the benchmarks have measured them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

MEASURED = Path(__file__).with_name("measured.json")
"""Written by `python -m tests.benchmarks --only growth --write docs/benchmarks.md`."""


class TaskCosts(Struct, frozen=True, kw_only=True):
    """What one task costs, at a rate of tasks of one process: the more there are, the more of them share a call.

    Pull, run, commit with result, usage record and two chunks; the answer of 1 KB is in the commit twice.
    """

    per_s: float
    worker_us: float
    commands: float
    """Of the server, those inside scripts included."""
    bytes_in: float
    bytes_out: float


class ChunkCosts(Struct, frozen=True, kw_only=True):
    """What one piece of 60 characters costs, at a rate of pieces of one process."""

    pieces_per_s: float
    worker_us: float
    server_us: float
    commands: float
    bytes_in: float


class Figures(Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Costs of single things. `_us` is CPU time on one core of the measuring machine; `server` is Redis or Valkey."""

    tasks: tuple[TaskCosts, ...]
    """From the slowest rate to the fastest."""
    chunks: tuple[ChunkCosts, ...]
    submit_commands: float
    """Of the server, to submit one task with a prompt of 1 KB by itself."""
    submit_bytes_in: float
    submit_bytes_out: float
    waiting_bytes: float
    """Server memory of a waiting task, beside its prompt."""
    waiting_bytes_per_prompt_byte: float
    running_bytes: float
    """Server memory of a running task, beside its prompt and its chunks."""
    result_bytes: float
    """Server memory of a result of 1 KB."""
    stream_bytes: float
    """Server memory of the replay stream of a short answer: the least that a stream has."""
    journal_bytes: float
    """Server memory of what the journal keeps of one model call."""
    usage_bytes: float
    """Server memory of the usage record of one model call."""
    chunk_memory_beside: float
    """Server memory of a kept chunk, beside its text."""
    chunk_memory_per_char: float
    chunk_bytes_in_per_char: float
    """Bytes to the server for each character of a chunk."""
    spoken_run_kib: float
    """Worker memory of a run that has said something, without a connection to a model."""
    streaming_run_kib: float
    """A run with an open model stream, its connection included."""
    renewal_worker_us: float
    renewal_commands: float
    renewal_bytes: float
    scan_us_per_run: float
    """Server time for each running task in a worker's look for expired leases."""
    heard_subscriber_us: float
    """Of a listener's process, for each chunk heard."""
    heard_server_us: float
    """For each process that listens to a chunk."""
    heard_bytes_out: float
    """Bytes from the server of a chunk to one process that listens, beside its text."""
    idle_worker_commands_per_s: float
    idle_worker_cpu_us_per_s: float
    idle_bytes_in_per_s: float
    idle_bytes_out_per_s: float
    worker_connections: float
    busy_worker_mib: float
    """Memory of a worker process that has worked, beside its runs."""

    def task(self, cost: Callable[[TaskCosts], float], per_s: float) -> float:
        """One cost of a task, in a process that has so many a second."""
        return between([(point.per_s, cost(point)) for point in self.tasks], per_s)

    def command_us(self, per_s: float) -> float:
        """Server CPU of one command, on a server that has so many a second, most of them those of chunks."""
        points = [(cost.pieces_per_s * cost.commands, cost.server_us / cost.commands) for cost in self.chunks]
        return between(points, per_s)

    def chunk(self, cost: Callable[[ChunkCosts], float], per_s: float) -> float:
        """One cost of a piece, in a process that has so many a second."""
        return between([(point.pieces_per_s, cost(point)) for point in self.chunks], per_s)


class Measured(Struct, frozen=True, kw_only=True):
    """Figures, and where they come from."""

    measured_at: str
    machine: str
    figures: dict[str, Any]


def measured(path: Path = MEASURED) -> tuple[Figures, Measured]:
    """The figures that came with this version. Raises `ValueError` if one is missing."""
    origin = msgspec.json.decode(path.read_bytes(), type=Measured)
    try:
        return msgspec.convert(origin.figures, Figures), origin
    except msgspec.ValidationError as error:
        raise ValueError(f"{path.name} is of another version: {error}; run the benchmarks' section `growth`") from error


def between(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at `x`: on a straight line, over the logarithm of x, between the points beside it; the outermost
    points' own beyond them."""
    if x <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if x <= right:
            return low + (high - low) * math.log(x / left) / math.log(right / left)
    return points[-1][1]
