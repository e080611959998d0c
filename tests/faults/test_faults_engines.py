"""One short soak for every engine that there is beside one Redis: the same promises, the faults that fit the engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.brokers.engines import ENGINES
from tests.faults.schedule import FaultKind, Mix
from tests.faults.soak import Options, soak
from tests.faults.test_faults import alone

pytestmark = pytest.mark.timeout(300)

ALL: Mix = {
    FaultKind.KILL: 1,
    FaultKind.STOP: 1,
    FaultKind.LOST_COMMIT: 2,
    FaultKind.LOST_REPLY: 1,
    FaultKind.CUT: 1,
    FaultKind.BROKER_CUT: 1,
    FaultKind.BROKER_CRASH: 1,
    FaultKind.FAILOVER: 1,
    FaultKind.USURPED: 1,
}
"""Each engine leaves out what it cannot be put through."""

__all__ = ["alone"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("engine", ["sentinel-wait", "cluster-wait", "nats", "postgresql"])
async def test_no_promise_breaks(engine: str, tmp_path: Path) -> None:
    """Every accepted task has one result, one gapless stream, each model call in the ledger, no effect twice."""
    if problem := ENGINES[engine].absence():
        pytest.skip(problem)
    options = Options(
        seed=4,
        tasks=40,
        engine=engine,
        duration_s=5,
        mix=ALL,
        workers=2,
        longest_s=1.5,
        command="pytest tests/faults/test_faults_engines.py",
    )
    outcome = await soak(options, tmp_path)
    assert not outcome.findings, str(outcome)
    assert outcome.figures["accepted"] > 30
    assert len(outcome.evidence.faults) == len(outcome.schedule.faults) > 0
