"""Short soaks with fixed seeds: nothing lost, nothing paid twice, whatever happens."""

from __future__ import annotations

import fcntl
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.schedule import FaultKind, Mix
from tests.faults.soak import Options, soak

pytestmark = pytest.mark.timeout(300)

WORKERS_DIE: Mix = {
    FaultKind.KILL: 4,
    FaultKind.STOP: 3,
    FaultKind.DRAIN: 1,
    FaultKind.HICCUP: 1,
    FaultKind.SLEEP: 1,
}
BROKER_DIES: Mix = {
    FaultKind.BROKER_RESTART: 1,
    FaultKind.BROKER_CRASH: 2,
    FaultKind.BROKER_OUTAGE: 1,
    FaultKind.BROKER_HANG: 1,
    FaultKind.POWER_CUT: 1,
    FaultKind.SCRIPTS_FORGOTTEN: 2,
    FaultKind.BROKER_CUT: 1,
    FaultKind.KILL: 1,
}
NETWORK_FAILS: Mix = {
    FaultKind.CUT: 4,
    FaultKind.LOST_REPLY: 3,
    FaultKind.LOST_COMMIT: 6,
    FaultKind.DELAY: 2,
    FaultKind.PARTITION: 2,
    FaultKind.STRAND: 1,
    FaultKind.CLIENT_CUT: 2,
}


@pytest.fixture
def alone() -> Iterator[None]:
    """One soak at a time on this machine, whichever test process runs it: two would starve each other's leases."""
    with (Path(tempfile.gettempdir()) / "shoal-soak.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("seed", "mix", "longest_s"),
    [
        pytest.param(1, WORKERS_DIE, math.inf, id="workers die"),
        pytest.param(2, BROKER_DIES, 4.0, id="the broker dies"),
        pytest.param(3, NETWORK_FAILS, 4.0, id="the network fails"),
    ],
)
async def test_no_promise_breaks(seed: int, mix: Mix, longest_s: float, tmp_path: Path) -> None:
    """Every accepted task has one result, one gapless stream, each model call in the ledger, no effect twice."""
    options = Options(
        seed=seed,
        tasks=150,
        duration_s=10,
        mix=mix,
        workers=3,
        longest_s=longest_s,
        command="pytest tests/faults/test_faults.py",
    )
    outcome = await soak(options, tmp_path)
    assert not outcome.findings, str(outcome)
    assert outcome.figures["accepted"] > 100
    assert len(outcome.evidence.faults) == len(outcome.schedule.faults)
