"""The manual says of each engine what the engine says of itself."""

from __future__ import annotations

from queue_backends.capabilities import Capability
from queue_backends.engines import OURS
from tests.queue_backends.engine_table import MANUAL, MORE, between_markers, table

ROOT = MANUAL.parents[1]


def test_the_manuals_table_is_current() -> None:
    """Else: `python -m tests.queue_backends.engine_table`."""
    assert between_markers(MANUAL.read_text(encoding="utf-8")) == table()


def test_the_table_is_complete() -> None:
    """Every engine has a column, every capability a row, and every gap its sentence."""
    rows = [line.split(" | ") for line in table().splitlines() if line.startswith("|")]
    assert [cell.strip("`| ") for cell in rows[0]][1:] == [f"{engine.name}://" for engine in OURS]
    assert {cell.strip("| ") for cell, *_ in rows} >= {capability.value for capability in Capability}
    assert len({len(row) for row in rows}) == 1
    for engine in OURS:
        for gap in (engine.gaps or {}).values():
            assert f"{gap[0].upper()}{gap[1:]}." in table()


def test_what_goes_beyond_the_contract_is_tested() -> None:
    """Each such cell names an engine of ours and a test that exists; a plain "yes" cannot do without one."""
    for row, cells in MORE.items():
        assert cells.keys() <= {engine.name for engine in OURS}
        for engine, cell in cells.items():
            assert cell.test or not cell.text.startswith("yes"), (row, engine)
            path, _, name = cell.test.partition("::")
            assert not cell.test or f"\nasync def {name}(" in (ROOT / path).read_text(encoding="utf-8"), cell.test
