"""`TaskQueue`: all of it."""

from __future__ import annotations

from queue_backends.conformance.cancelling import CancelConformance
from queue_backends.conformance.delivery import DeliveryConformance
from queue_backends.conformance.endings import DeadLetterConformance, ResultConformance, RetryConformance
from queue_backends.conformance.leases import LeaseConformance
from queue_backends.conformance.operators import OperatorConformance
from queue_backends.conformance.unreadable import UnreadableConformance
from queue_backends.conformance.waking import WakeConformance


class QueueConformance(
    DeliveryConformance,
    LeaseConformance,
    ResultConformance,
    RetryConformance,
    DeadLetterConformance,
    CancelConformance,
    OperatorConformance,
    WakeConformance,
    UnreadableConformance,
):
    """Every promise of `TaskQueue`."""
