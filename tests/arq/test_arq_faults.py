"""Short soaks on an arq queue: half of its trouble comes from the server, half from workers and the network."""

from __future__ import annotations

from pathlib import Path

import pytest
from arq_broker import ArqBroker

from tests.faults.brokers.engines import ENGINES
from tests.faults.schedule import FaultKind, Mix
from tests.faults.soak import Options, soak
from tests.faults.test_faults import alone

__all__ = ["alone"]

ALL: Mix = {
    FaultKind.KILL: 2,
    FaultKind.STOP: 1,
    FaultKind.DRAIN: 1,
    FaultKind.LOST_COMMIT: 3,
    FaultKind.LOST_REPLY: 2,
    FaultKind.CUT: 1,
    FaultKind.BROKER_CUT: 1,
    FaultKind.BROKER_CRASH: 1,
    FaultKind.SCRIPTS_FORGOTTEN: 1,
}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("alone")
async def test_no_promise_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every accepted job, arq's own client's too, has one result, one gapless stream, each model call in the ledger,
    and leaves nothing behind in arq's keys."""
    monkeypatch.setitem(ENGINES, ArqBroker.name, ArqBroker)
    options = Options(
        seed=5,
        tasks=60,
        engine=ArqBroker.name,
        duration_s=6,
        mix=ALL,
        workers=2,
        longest_s=2,
        command="pytest tests/arq/test_arq_faults.py",
    )
    outcome = await soak(options, tmp_path)
    assert not outcome.findings, str(outcome)
    assert outcome.figures["accepted"] > 40
    assert len(outcome.evidence.faults) == len(outcome.schedule.faults) > 0
