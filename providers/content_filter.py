"""What a content filter says that it found, in the form that Azure reports it. Pure.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter. The same categories stand in errors
(`innererror.content_filter_result`), in chunks (`content_filter_results`) and in responses (`content_filters`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def filtered_categories(report: Any) -> str:
    """The categories that were filtered, such as `hate: high, jailbreak`; empty if none was, or this is no report."""
    return ", ".join(dict.fromkeys(_filtered(report)))


def _filtered(report: Any) -> Iterator[str]:
    if isinstance(report, list):
        for item in report:
            yield from _filtered(item)
    elif isinstance(report, dict):
        for name, finding in report.items():
            if isinstance(finding, dict) and finding.get("filtered") is True:
                severity = finding.get("severity")
                yield f"{name}: {severity}" if severity else str(name)
            else:
                yield from _filtered(finding)
