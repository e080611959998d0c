"""What a kubeswarm queue plugin lacks, because its protocol does. Known without grpcio."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from queue_backends.capabilities import Capability

_PLUGINS_AFFAIR = "kubeswarm's protocol does not say; that is up to the plugin"

GAPS: Mapping[Capability, str] = MappingProxyType(
    {
        Capability.DURABLE: "chunks and state are gone with this process, unless another engine is configured for them",
        Capability.ATOMIC_COMMIT: "a crash in the middle of a run's end leaves some of it written, some not",
        Capability.FENCED_CHUNKS: "a worker whose task the plugin gave to another may still publish what was under way",
        Capability.ORDER: _PLUGINS_AFFAIR,
        Capability.PRIORITIES: _PLUGINS_AFFAIR,
        Capability.DELAYED: "a retry comes when the plugin gives it, and a task cannot be submitted for later",
        Capability.WAKE: "the protocol has no delayed tasks",
        Capability.IDEMPOTENCY: _PLUGINS_AFFAIR,
        Capability.CANCEL_WAITING: "the plugin is asked to end a task, and does not say whether it did",
        Capability.DEAD_LETTERS: "they are kept by the plugin, and cannot be seen from here",
        Capability.PAUSE: "the plugin cannot be held",
        Capability.LISTING: "only tasks in this process' hands, and results, can be looked up",
        Capability.MAX_DEPTH: _PLUGINS_AFFAIR,
        Capability.LEASE_THREAD: "there are no leases: when a task is given to somebody else is up to the plugin",
    }
)
