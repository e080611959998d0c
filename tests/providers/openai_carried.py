"""Whether a request to the Responses API has what a `ThinkingPart` carries."""

from __future__ import annotations

import json
from typing import Any


def is_carried(body: Any, value: str) -> bool:
    """A reasoning item, or the names of the items after it: each is among the input's items, with all its values."""
    carried = json.loads(value)
    wanted = carried.get("items", [carried])
    return all(any(item.items() >= each.items() for item in body["input"]) for each in wanted)
