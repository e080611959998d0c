"""What the queue's engine cannot promise, said once when a worker starts, so that nobody finds out in production."""

from __future__ import annotations

import structlog

from queue_backends import Backend, Capability

log = structlog.get_logger(__name__)


def say_gaps(backend: Backend) -> None:
    """One line for each gap. What may cost accepted tasks is a warning; the rest is as its user has chosen it."""
    engine = backend.url.partition("://")[0] or "embedded"
    for capability, meaning in backend.gaps.items():
        say = log.warning if capability is Capability.DURABLE else log.info
        say("the queue's engine lacks a guarantee", engine=engine, lacks=capability.value, meaning=meaning)
