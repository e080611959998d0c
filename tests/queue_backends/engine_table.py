"""The manual's table of engines and guarantees, made from what the backends say that they lack.

`python -m tests.queue_backends.engine_table` writes it into the manual; a test finds out if that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from queue_backends.capabilities import Capability
from queue_backends.engines import OURS, Engine

MANUAL = Path(__file__).parents[2] / "docs" / "queue-backends.md"
BEGIN, END = "<!-- engines: begin -->", "<!-- engines: end -->"

_BY_APPEND_ONLY_FILE = "as its append-only file"
NOTES: Mapping[tuple[str, Capability], str] = {
    (engine, Capability.DURABLE): _BY_APPEND_ONLY_FILE
    for engine in ("redis", "redis+sentinel", "redis+cluster", "arq+redis")
}
"""What stands in place of "yes" where the promise is one of the server's own set-up."""


class Cell(NamedTuple):
    """What an engine has beyond the contract."""

    text: str
    test: str
    """Which one shows it: `path::name`. Empty: that is the server's own affair."""


MORE: Mapping[str, Mapping[str, Cell]] = {
    "outlives the loss of a machine": {
        "redis+sentinel": Cell(
            "yes, by its replicas", "tests/queue_backends/test_redis_sentinel.py::test_runs_go_through_a_failover"
        ),
        "redis+cluster": Cell(
            "yes, by its replicas", "tests/queue_backends/test_redis_cluster_failover.py::test_a_master_dies_under_load"
        ),
        "nats": Cell(
            "with `?replicas=3`",
            "tests/queue_backends/test_nats_server.py::test_a_cluster_outlives_the_loss_of_a_server",
        ),
        "postgresql": Cell("by its own replication", ""),
    },
    "submit inside your own transaction": {
        "postgresql": Cell("yes", "tests/queue_backends/test_postgresql_transactional.py::test_commit_makes_both")
    },
    "ark's operators can drive it": {
        "redis": Cell("yes", "tests/e2e/test_ark_operator.py::test_task_result_and_list_of_text"),
        "redis+sentinel": Cell(
            "by an address that follows the master",
            "tests/queue_backends/test_redis_trouble.py::test_failover_behind_one_address",
        ),
    },
    "arq's own client can enqueue": {
        "arq+redis": Cell("yes", "tests/arq/test_arq_engine.py::test_a_job_is_run_and_its_result_is_the_answer")
    },
}
"""Row -> engine -> cell; "no" where nothing is said."""

_NO = Cell("no", "")


def table() -> str:
    """The whole part of the manual between its markers."""
    notes = _Footnotes()
    rows = [
        ["", *(f"`{engine.name}://`" for engine in OURS)],
        ["---"] * (len(OURS) + 1),
        *([each.value, *(_cell(engine, each, notes) for engine in OURS)] for each in Capability),
        *([row, *(cells.get(engine.name, _NO).text for engine in OURS)] for row, cells in MORE.items()),
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *notes.lines()])


def _cell(engine: Engine, capability: Capability, notes: _Footnotes) -> str:
    if engine.gaps is None:
        raise RuntimeError(f"{engine.package}.gaps is missing: what {engine.name} lacks is not known")
    if gap := engine.gaps.get(capability):
        return f"no ({notes.number(gap)})"
    if gap := engine.gaps_of_partitions.get(capability):
        return f"with one partition ({notes.number(gap)})"
    return NOTES.get((engine.name, capability), "yes")


class _Footnotes:
    """Sentences by number; the same sentence has one."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text) + 1

    def lines(self) -> Iterator[str]:
        for number, text in enumerate(self._texts, start=1):
            yield f"{number}. {text[0].upper()}{text[1:]}."


def between_markers(manual: str) -> str:
    """What the manual has now."""
    return manual.partition(BEGIN)[2].partition(END)[0].strip("\n")


def with_table(manual: str) -> str:
    """The manual with the table as it must be."""
    before, _, rest = manual.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    MANUAL.write_text(with_table(MANUAL.read_text(encoding="utf-8")), encoding="utf-8")
