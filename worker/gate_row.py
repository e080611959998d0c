"""The gates before a model call, as a row: entered one after the other, left in the opposite order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from providers.tool_loop import TurnRecord
from queue_backends import UsageRecord
from worker.call_gates import CallGate, ModelCallIntent


def now_active(gates: Sequence[CallGate]) -> Sequence[CallGate]:
    """All gates if one of them has anything to ask at present; else none, and the call may simply be sent."""
    return gates if any(gate.active for gate in gates) else ()


async def enter_all(gates: Sequence[CallGate], intent: ModelCallIntent) -> None:
    """Reserve what the call needs, or nothing. Raises what `CallGate.enter` raises."""
    entered: list[CallGate] = []
    try:
        for gate in gates:
            await gate.enter(intent)
            entered.append(gate)
    except BaseException:
        for gate in reversed(entered):
            gate.abandon(intent)
        raise


async def leave_all(gates: Sequence[CallGate], intent: ModelCallIntent, record: TurnRecord, entry: UsageRecord) -> None:
    """The call has ended: settle what was reserved, also if this is cancelled."""
    inside = list(gates)
    try:
        while inside:
            await inside[-1].leave(intent, record, entry)
            inside.pop()
    except asyncio.CancelledError:
        for gate in reversed(inside):
            gate.note(intent, record, entry)
        raise
