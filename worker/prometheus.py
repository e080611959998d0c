"""The page of /metrics: the Prometheus text format, version 0.0.4.

A family `task.duration` in seconds becomes `<prefix>_task_duration_seconds`; counters end in `_total`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from worker.metric_families import Family, families
from worker.metrics import Histogram, Labels, Metrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(metrics: Metrics) -> str:
    """All figures of this process as they stand now. Families without a value are left out."""
    return render_families(metrics.prefix, families(metrics))


def render_families(prefix: str, of_families: Iterable[Family]) -> str:
    """Such figures. Families without a value are left out."""
    return "".join(_family_text(prefix, family) for family in of_families)


def _family_text(prefix: str, family: Family) -> str:
    if not family.samples:
        return ""
    name = "_".join([prefix, *family.name.split("."), *([family.unit] if family.unit else [])])
    name = f"{name}_total" if family.kind == "counter" else name
    lines = [f"# HELP {name} {family.help}\n", f"# TYPE {name} {family.kind}\n"]
    for sample in family.samples:
        if isinstance(sample.value, Histogram):
            lines.extend(_histogram_lines(name, sample.labels, sample.value))
        else:
            lines.append(f"{name}{_label_text(sample.labels)} {_number(sample.value)}\n")
    return "".join(lines)


def _histogram_lines(name: str, labels: Labels, histogram: Histogram) -> Iterable[str]:
    total = 0
    for bound, count in zip((*histogram.bounds, None), list(histogram.counts), strict=True):
        total += count
        le = "+Inf" if bound is None else _number(bound)
        yield f"{name}_bucket{_label_text((*labels, ('le', le)))} {total}\n"
    yield f"{name}_sum{_label_text(labels)} {_number(histogram.sum)}\n"
    yield f"{name}_count{_label_text(labels)} {total}\n"


_ESCAPES: Mapping[int, str] = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def _label_text(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels) + "}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
