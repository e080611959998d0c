"""What arq's queues always lack: nothing. Known without arq."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from queue_backends.capabilities import Capability

GAPS: Mapping[Capability, str] = MappingProxyType({})
