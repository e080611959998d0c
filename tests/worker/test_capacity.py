"""The capacity model: right where it can be calculated by hand, and fed by what was measured."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import asdict, replace

from worker.capacity import Figures, Limits, Load, measured, needs
from worker.capacity.figures import ChunkCosts, TaskCosts, between

ROOT = Path(__file__).parents[2]
ROUND = Figures(
    tasks=(
        TaskCosts(per_s=1, worker_us=1_000, commands=20, bytes_in=4_000, bytes_out=2_000),
        TaskCosts(per_s=100, worker_us=100, commands=10, bytes_in=4_000, bytes_out=2_000),
    ),
    chunks=(
        ChunkCosts(pieces_per_s=1, worker_us=100, server_us=40, commands=4, bytes_in=300),
        ChunkCosts(pieces_per_s=1_000, worker_us=10, server_us=4, commands=2, bytes_in=200),
    ),
    waiting_bytes=100,
    waiting_bytes_per_prompt_byte=1,
    running_bytes=200,
    result_bytes=1_324,
    stream_bytes=4_000,
    journal_bytes=800,
    usage_bytes=400,
    chunk_memory_beside=80,
    chunk_memory_per_char=1,
    chunk_bytes_in_per_char=1,
    submit_commands=5,
    submit_bytes_in=1_500,
    submit_bytes_out=50,
    spoken_run_kib=20,
    streaming_run_kib=40,
    renewal_worker_us=10,
    renewal_commands=3,
    renewal_bytes=100,
    scan_us_per_run=0.05,
    heard_subscriber_us=50,
    heard_server_us=10,
    heard_bytes_out=200,
    idle_worker_commands_per_s=10,
    idle_worker_cpu_us_per_s=1_000,
    idle_bytes_in_per_s=1_000,
    idle_bytes_out_per_s=1_000,
    worker_connections=4,
    busy_worker_mib=60,
)
SMALL = Load(tasks=100, task_s=100, chunks_per_s=0, calls=1, listeners=0, prompt_bytes=1_024, lease_s=30)


def test_what_is_between_two_points_lies_on_a_line_over_the_logarithm() -> None:
    """And nothing is made up beyond the outermost ones."""
    points = [(1.0, 100.0), (100.0, 20.0)]
    assert [between(points, x) for x in (0.1, 1, 10, 100, 1_000)] == [100, 100, pytest.approx(60), 20, 20]


def test_a_small_load_by_hand() -> None:
    """One process, one partition; one task and ten renewals a second, with nothing said."""
    need = needs(SMALL, ROUND)

    assert (need.processes, need.partitions, need.tasks_per_s) == (1, 1, 1)
    assert need.worker_cpu == pytest.approx((1_000 + 10 * 10 + 1_000) / 1e6)
    assert need.commands_per_s == pytest.approx(20 + 5 + 10 * 3 + 10)
    assert need.server_cpu == pytest.approx((65 * ROUND.command_us(65) + 0.5 * 100 * 0.05) / 1e6)
    assert need.worker_gib == pytest.approx((60 + 100 * 40 / 1024) / 1024)
    assert need.connections == 4


def test_a_command_costs_a_busy_server_less() -> None:
    """By the rate of the server, not of one process: it is the server that is woken up."""
    assert (ROUND.command_us(4), ROUND.command_us(2_000)) == (10, 2)
    assert 2 < ROUND.command_us(100) < 10


def test_looks_for_expired_leases_do_not_grow_with_workers() -> None:
    """One of all workers looks every two seconds, through all runs, in however many partitions they are."""
    free = replace(ROUND, scan_us_per_run=0)
    for tasks, limits in ((1_000, Limits()), (1_000, Limits(slots=10)), (1_000, Limits(connections=40))):
        load = replace(SMALL, tasks=tasks)
        looks = needs(load, ROUND, limits).server_cpu - needs(load, free, limits).server_cpu
        assert looks == pytest.approx(tasks / 2 * 0.05 / 1e6)


def test_memory_by_hand() -> None:
    """Each kind of thing that is kept is there as long as it is kept."""
    need = needs(replace(SMALL, waiting=1_000, result_retention_s=10, chunk_retention_s=5, usage_retention_s=20), ROUND)
    parts = {name: round(size * 2**30) for name, size in need.memory_gib.items()}

    assert parts["waiting tasks"] == 1_000 * (100 + 1_024)
    assert parts["results"] == 10 * (1_324 - 1_024)
    assert parts["journals"] == 10 * 800
    assert parts["replay streams"] == 5 * 4_000
    assert parts["usage records"] == 20 * 400
    assert need.server_gib == pytest.approx(sum(need.memory_gib.values()))


@pytest.mark.parametrize(
    ("load", "limits", "because"),
    [
        (replace(SMALL, tasks=1_000), Limits(), "slots"),
        (replace(SMALL, tasks=1_000), Limits(slots=1_000, worker_mib=64), "memory"),
        (replace(SMALL, tasks=1_000, chunks_per_s=100), Limits(slots=1_000), "CPU"),
    ],
)
def test_what_binds_the_number_of_processes(load: Load, limits: Limits, because: str) -> None:
    """Slots, memory or CPU, whichever asks for the most; and no process exceeds a limit."""
    need = needs(load, ROUND, limits)

    assert need.processes_because == because
    assert need.slots <= limits.slots
    assert need.worker_cpu / need.processes <= limits.worker_cpu
    assert need.worker_gib * 1024 / need.processes <= limits.worker_mib + 1


@pytest.mark.parametrize(
    ("limits", "because"),
    [
        (Limits(server_gib=0.001), "memory"),
        (Limits(connections=10), "connections"),
        (Limits(server_mbit=0.1), "bandwidth"),
        (Limits(server_cpu=0.001, server_gib=1_000), "server CPU"),
    ],
)
def test_what_binds_the_number_of_partitions(limits: Limits, because: str) -> None:
    """The limit that asks for the most is named."""
    need = needs(replace(SMALL, tasks=1_000, chunks_per_s=1), ROUND, limits)

    assert (need.partitions > 1, need.partitions_because) == (True, because)
    assert need.server_cpu / need.partitions <= limits.server_cpu


def test_ten_times_the_load_never_needs_less() -> None:
    """From a hundred tasks to ten millions, everything grows."""
    found = [needs(replace(SMALL, tasks=10**n, chunks_per_s=20, listeners=1), ROUND) for n in range(2, 8)]

    for less, more in itertools.pairwise(found):
        for name in ("processes", "partitions", "worker_cpu", "server_cpu", "server_gib", "commands_per_s", "mbit_out"):
            assert getattr(more, name) >= getattr(less, name)


def test_nothing_is_no_load() -> None:
    """A clear error instead of a division by zero."""
    with pytest.raises(ValueError, match="must be above 0"):
        needs(Load(tasks=0), ROUND)


def test_the_figures_are_those_of_the_benchmarks() -> None:
    """Whoever measures again and forgets one of the two files would plan with old costs."""
    figures, origin = measured()
    pages = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    (growth,) = [page for page in pages if page["section"] == "growth"]

    assert origin.figures == {**growth["figures"], **growth["curves"]}
    assert (origin.measured_at, origin.machine) == (growth["measured_at"], growth["machine"])
    assert all(value >= 0 for value in asdict(figures).values() if isinstance(value, float))


def test_figures_of_another_version_are_refused(tmp_path: Path) -> None:
    """A missing cost is named, and how to get it."""
    file = tmp_path / "measured.json"
    file.write_bytes(msgspec.json.encode({"measured_at": "now", "machine": "this", "figures": {"run_kib": 1.0}}))

    with pytest.raises(ValueError, match="run the benchmarks' section `growth`"):
        measured(file)
