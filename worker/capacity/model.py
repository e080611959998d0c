"""From a load to what it needs. Every line of it stands as a formula in `docs/scaling.md`."""

from __future__ import annotations

import math

from msgspec import Struct

from worker.capacity.figures import Figures
from worker.usage import KEEP_S

LOOK_FOR_EXPIRED_S = 2.0
"""How often one of all workers looks for leases that have run out (`queue_backends.redis.pulling`), or a fifth of the
lease: once for all of a partition's tasks."""
RENEWALS_PER_LEASE = 3
MEASURED_CHARS = 60
MEASURED_BYTES = 1_024
"""Of prompt and answer in the measured costs."""
MIB, GIB = 2.0**20, 2.0**30


class Load(Struct, frozen=True, kw_only=True):
    """What shall run. All figures are averages over a task's life, tools and waiting for models included."""

    tasks: float
    """Running at once."""
    task_s: float = 60.0
    """From a task's start to its end."""
    chunks_per_s: float = 20.0
    """Pieces of text of each running task."""
    chunk_chars: float = 6.0
    prompt_bytes: float = 4_000.0
    calls: float = 2.0
    """Model calls of a task."""
    waiting: float = 0.0
    """Tasks in the queue, beside those that run."""
    submitted: bool = True
    """Whether tasks come as fast as they end; else they were all submitted before."""
    listeners: float = 1.0
    """Processes that listen to a task."""
    lease_s: float = 30.0
    result_retention_s: float = 24 * 3600.0
    chunk_retention_s: float = 3600.0
    usage_retention_s: float = KEEP_S


class Limits(Struct, frozen=True, kw_only=True):
    """How much one process, one server, one link may be asked for."""

    slots: float = 100.0
    """Tasks at once in one worker process."""
    worker_cpu: float = 0.7
    """Of one core."""
    worker_mib: float = 2_048.0
    server_cpu: float = 0.6
    """Of the one core that runs commands."""
    server_gib: float = 24.0
    """Of data; the machine needs half as much again, for copies while it saves."""
    server_mbit: float = 2_500.0
    """In one direction."""
    connections: float = 10_000.0
    """`maxclients`."""


class Need(Struct, frozen=True, kw_only=True):
    """What a load needs, in all; `partition_…` is one server's part."""

    tasks_per_s: float
    chunks_per_s: float
    processes: int
    processes_because: str
    slots: float
    """Tasks at once in each process."""
    worker_cpu: float
    """Cores in use, all workers together."""
    worker_gib: float
    subscriber_cpu: float
    partitions: int
    partitions_because: str
    """Empty: one is enough."""
    server_cpu: float
    commands_per_s: float
    mbit_in: float
    mbit_out: float
    connections: float
    memory_gib: dict[str, float]
    """What of -> GiB of all servers together."""

    @property
    def server_gib(self) -> float:
        """All servers' data."""
        return sum(self.memory_gib.values())


def needs(load: Load, figures: Figures, limits: Limits | None = None) -> Need:
    """The fewest processes and partitions that stay below the limits. Raises `ValueError` for a load of nothing."""
    limits = limits or Limits()
    if load.tasks <= 0 or load.task_s <= 0:
        raise ValueError(f"tasks and task_s must be above 0, got {load.tasks:g} and {load.task_s:g}")
    processes, why = _processes(load, figures, limits)
    memory = {name: size / GIB for name, size in _memory(load, figures).items()}
    commands, bytes_in, bytes_out = _traffic(load, figures, processes)
    asked = {
        "memory": sum(memory.values()) / limits.server_gib,
        "bandwidth": max(bytes_in, bytes_out) * 8 / 1e6 / limits.server_mbit,
        "connections": figures.worker_connections * processes / limits.connections,
    }
    partitions = max(1, *(math.ceil(share) for share in asked.values()))
    by_cpu = _partitions_by_cpu(load, figures, limits, processes)
    because = max(asked, key=asked.__getitem__) if partitions > by_cpu else "server CPU"
    partitions = max(partitions, by_cpu)
    return Need(
        tasks_per_s=load.tasks / load.task_s,
        chunks_per_s=load.tasks * load.chunks_per_s,
        processes=processes,
        processes_because=why,
        slots=load.tasks / processes,
        worker_cpu=processes * _worker_cpu(load, figures, processes),
        worker_gib=_worker_mib(load, figures, processes) * processes * MIB / GIB,
        subscriber_cpu=load.tasks * load.chunks_per_s * load.listeners * figures.heard_subscriber_us / 1e6,
        partitions=partitions,
        partitions_because=because if partitions > 1 else "",
        server_cpu=_server_cpu(load, figures, processes, partitions),
        commands_per_s=commands,
        mbit_in=bytes_in * 8 / 1e6,
        mbit_out=bytes_out * 8 / 1e6,
        connections=figures.worker_connections * processes,
        memory_gib=memory,
    )


def _processes(load: Load, figures: Figures, limits: Limits) -> tuple[int, str]:
    """The fewest that have the slots, the memory and the CPU."""
    by_slots = math.ceil(load.tasks / limits.slots)
    room_kib = (limits.worker_mib - figures.busy_worker_mib) * 1024
    by_memory = math.ceil(load.tasks * figures.streaming_run_kib / room_kib)
    found = max(by_slots, by_memory, 1)
    why = "slots" if by_slots >= by_memory else "memory"
    # The more processes, the fewer pieces share a call, so that this is no division.
    while _worker_cpu(load, figures, found) > limits.worker_cpu:
        found, why = max(found + 1, math.floor(found * 1.02)), "CPU"
    return found, why


def _worker_mib(load: Load, figures: Figures, processes: int) -> float:
    """One process."""
    return figures.busy_worker_mib + load.tasks / processes * figures.streaming_run_kib / 1024


def _worker_cpu(load: Load, figures: Figures, processes: int) -> float:
    """Of one core, one process."""
    runs = load.tasks / processes
    tasks, pieces = runs / load.task_s, runs * load.chunks_per_s
    renewals = runs * RENEWALS_PER_LEASE / load.lease_s
    turns = tasks * (load.calls - 1)  # each turn before the last is stored on its own
    # A process that is awake for one thing has the other cheaper: each counts for the other's rate, by its commands.
    pieces_per_task = figures.task(lambda cost: cost.commands, tasks) / figures.chunk(
        lambda cost: cost.commands, pieces
    )
    micros = (
        tasks * figures.task(lambda cost: cost.worker_us, tasks + pieces / pieces_per_task)
        + (pieces + turns) * figures.chunk(lambda cost: cost.worker_us, pieces + tasks * pieces_per_task)
        + renewals * figures.renewal_worker_us
        + figures.idle_worker_cpu_us_per_s
    )
    return micros / 1e6


def _server_cpu(load: Load, figures: Figures, processes: int, partitions: int) -> float:
    """Cores in use, all partitions together. A command costs a busy server less than an idle one, which is woken up
    for it, so that its price is that of a partition's own rate."""
    commands, _, _ = _traffic(load, figures, processes)
    micros = (
        commands * figures.command_us(commands / partitions)
        + load.tasks * load.chunks_per_s * load.listeners * figures.heard_server_us
        + _looks_per_s(load) * load.tasks * figures.scan_us_per_run
    )
    return micros / 1e6


def _looks_per_s(load: Load) -> float:
    return 1 / min(LOOK_FOR_EXPIRED_S, load.lease_s / 5)


def _partitions_by_cpu(load: Load, figures: Figures, limits: Limits, processes: int) -> int:
    """The more partitions, the less each is asked, and the more each command costs: this is no division."""
    found = 1
    while _server_cpu(load, figures, processes, found) / found > limits.server_cpu:
        found = max(found + 1, math.floor(found * 1.02))
    return found


def _traffic(load: Load, figures: Figures, processes: int) -> tuple[float, float, float]:
    """Commands, bytes to the servers and bytes from them, a second."""
    runs = load.tasks / processes
    tasks, pieces = runs / load.task_s, runs * load.chunks_per_s
    renewals = runs * RENEWALS_PER_LEASE / load.lease_s
    chunk_bytes = figures.chunk(lambda cost: cost.bytes_in, pieces)
    chunk_bytes += (load.chunk_chars - MEASURED_CHARS) * figures.chunk_bytes_in_per_char
    answer = load.task_s * load.chunks_per_s * load.chunk_chars
    commands = (
        tasks * figures.task(lambda cost: cost.commands, tasks)
        + (pieces + tasks * (load.calls - 1)) * figures.chunk(lambda cost: cost.commands, pieces)
        + tasks * load.submitted * figures.submit_commands
        + renewals * figures.renewal_commands
        + figures.idle_worker_commands_per_s
    )
    bytes_in = (
        tasks * (figures.task(lambda cost: cost.bytes_in, tasks) + answer - 2 * MEASURED_BYTES)
        + tasks * load.submitted * (figures.submit_bytes_in + load.prompt_bytes - MEASURED_BYTES)
        + (pieces + tasks * (load.calls - 1)) * chunk_bytes
        + renewals * figures.renewal_bytes
        + figures.idle_bytes_in_per_s
    )
    bytes_out = (
        tasks * (figures.task(lambda cost: cost.bytes_out, tasks) + load.prompt_bytes - MEASURED_BYTES)
        + tasks * load.submitted * figures.submit_bytes_out
        + pieces * load.listeners * (figures.heard_bytes_out + load.chunk_chars)
        + figures.idle_bytes_out_per_s
    )
    return processes * commands, processes * bytes_in, processes * bytes_out


def _memory(load: Load, figures: Figures) -> dict[str, float]:
    """Bytes of all servers together, by what they hold."""
    tasks_per_s = load.tasks / load.task_s
    prompt = load.prompt_bytes * figures.waiting_bytes_per_prompt_byte
    pieces = load.task_s * load.chunks_per_s
    answer = pieces * load.chunk_chars
    stream = max(
        figures.stream_bytes,
        pieces * (figures.chunk_memory_beside + load.chunk_chars * figures.chunk_memory_per_char),
    )
    journal = load.calls * figures.journal_bytes + answer * (1 - 1 / load.calls)  # the last answer is the result
    return {
        "waiting tasks": load.waiting * (figures.waiting_bytes + prompt),
        "running tasks": load.tasks * (figures.running_bytes + prompt + stream / 2 + journal / 2),
        "results": tasks_per_s * load.result_retention_s * (figures.result_bytes - MEASURED_BYTES + answer),
        "journals": tasks_per_s * load.result_retention_s * journal,
        "replay streams": tasks_per_s * load.chunk_retention_s * stream,
        "usage records": tasks_per_s * load.usage_retention_s * load.calls * figures.usage_bytes,
    }
