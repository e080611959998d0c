"""What the gateway counts, in the form of the workers' metrics."""

from __future__ import annotations

from worker.metric_families import Family, Sample
from worker.metrics import CALL_BUCKETS_S, Histogram


class GatewayMetrics:
    """Requests by operation and status, and open streams. Operations are few, so the labels are bounded."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._duration_s: dict[str, Histogram] = {}
        self.open_streams = 0
        self.refused_credentials = 0

    def answered(self, operation: str, status: int, duration_s: float | None) -> None:
        """Count one request. `operation`: method and path as declared. No duration for streams."""
        key = (operation, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        if duration_s is not None:
            self._duration_s.setdefault(operation, Histogram(CALL_BUCKETS_S)).observe(duration_s)

    def families(self) -> list[Family]:
        """All of it as it stands now."""
        requests = [
            Sample((("operation", operation), ("status", str(status))), count)
            for (operation, status), count in sorted(self._requests.items())
        ]
        durations = [Sample((("operation", name),), each) for name, each in sorted(self._duration_s.items())]
        return [
            Family(name="gateway.requests", kind="counter", help="Requests answered.", samples=requests),
            Family(
                name="gateway.request.duration",
                kind="histogram",
                help="Time to an answer, streams left out.",
                samples=durations,
                unit="seconds",
            ),
            _one("gateway.streams", "gauge", "Event streams open.", self.open_streams),
            _one("gateway.refused_credentials", "counter", "Wrong keys and tokens.", self.refused_credentials),
        ]


def _one(name: str, kind: str, said: str, value: float) -> Family:
    return Family(name=name, kind=kind, help=said, samples=[Sample((), value)])
