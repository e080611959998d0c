"""Processes of a fleet against a server that enforces limits: the short form of `tests.rate_limits.simulation`.

It asserts counts that hold on a slow machine as well; the figures of the long form are in docs/limits.md.
"""

from __future__ import annotations

import pytest

from tests.rate_limits.limited_server import VendorRates
from tests.rate_limits.simulation import Case, simulate

pytestmark = pytest.mark.timeout(120)


async def test_a_fleet_keeps_to_the_vendors_limits(queue_url: str) -> None:
    """Three processes, three tenants: hardly a call is refused, most of what is allowed is used, and nobody starves:
    the tenant with few calls gets about as much as the one with many, the one with a single call what it can use."""
    case = Case(
        name="short",
        rates=VendorRates(requests_per_min=900, input_tokens_per_min=1_200_000, capacity_s=15.0),
        limits={"key": {"requests_per_min": 900, "input_tokens_per_min": 1_200_000, "burst_s": 2}},
        tenants={"large": 25, "middle": 8},
        slots=15,
    )
    outcome = await simulate(case, state_url=queue_url, processes=3, warm_up_s=1.0, seconds=5.0)
    assert outcome.refused_share < 0.01
    assert outcome.best_used > 0.6
    assert outcome.sent > 60
    answered = {tenant: len(waits) for tenant, waits in outcome.waits_s.items()}
    assert set(answered) == {"large", "middle", "single"}
    assert answered["single"] >= 3
    # Tenants take turns while both have calls waiting, which on a slow machine the one with few has not always: each of
    # its callers then makes at least as many calls as one of the other's.
    assert answered["middle"] / case.tenants["middle"] > answered["large"] / case.tenants["large"] * 0.8
