"""Ids of tool calls as clients see them. They tell which run made the call, so that the next request can find it.

`call_<task>_<position>`: vendors take letters, digits, `_` and `-`, so that a task's id with other characters stands in
hexadecimal digits, after `call_x`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PLAIN = re.compile(r"(?!x)[0-9A-Za-z-]+")
_CALL = re.compile(r"call_(?P<hex>x)?(?P<task>[0-9A-Za-z-]+)_(?P<position>[0-9]{1,4})")


class CallAddress(NamedTuple):
    """Which call of which run."""

    task_id: str
    position: int
    """Among the calls that the run ended with, from 0."""


def call_id(task_id: str, position: int) -> str:
    """The id that a client sees."""
    if _PLAIN.fullmatch(task_id):
        return f"call_{task_id}_{position}"
    return f"call_x{task_id.encode().hex()}_{position}"


def call_address(identifier: str) -> CallAddress | None:
    """Where a call with that id comes from; None if it is not one of ours."""
    found = _CALL.fullmatch(identifier)
    if found is None:
        return None
    task_id = found["task"]
    if found["hex"]:
        try:
            task_id = bytes.fromhex(task_id).decode()
        except ValueError:
            return None
    return CallAddress(task_id, int(found["position"]))
