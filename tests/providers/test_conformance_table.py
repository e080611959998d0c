"""The manual says of each provider what the provider says of itself."""

from __future__ import annotations

import importlib.metadata

from providers.capabilities import Capability
from providers.interfaces import ChatProvider
from providers.registry import ENTRY_POINTS, create
from providers.scripted import ScriptedProvider
from tests.providers.conformance_table import MANUAL, between_markers, capability_table, content, suites


def test_the_manuals_tables_are_current() -> None:
    """Else: `python -m tests.providers.conformance_table`."""
    assert between_markers(MANUAL.read_text(encoding="utf-8")) == content()


def test_the_table_is_complete() -> None:
    """Every suite has a column, every capability a row, and every gap its sentence."""
    table = capability_table()
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert {cell.strip("| ") for cell, *_ in rows} >= {capability.value for capability in Capability}
    assert {len(row) for row in rows} == {len(suites()) + 1}
    for suite in suites():
        for gap in suite().provider().gaps.values():
            assert f"{gap[0].upper()}{gap[1:]}." in table


def test_every_built_in_provider_passes_the_suite() -> None:
    """No provider is shipped that the suite does not know; a script is not a vendor, and has tests of its own."""
    shipped = {point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)} or {"anthropic"}
    made = [create(name) for name in sorted(shipped)]
    proven = {type(suite().provider()) for suite in suites()} | {ScriptedProvider}
    mine = [each for each in made if isinstance(each, ChatProvider) and type(each).__module__.startswith("providers.")]
    assert [each.name for each in mine if not any(issubclass(known, type(each)) for known in proven)] == []
