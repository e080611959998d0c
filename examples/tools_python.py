"""Python functions as tools; `SHOAL_PYTHON_TOOLS=examples/tools_python.py` offers them to a worker's agents."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

from worker.errors import ToolCallFailed
from worker.tools import ToolContext, tool

STOCK = {"apple": 12, "pear": 0, "plum": 40}


class Line(Struct):
    """One line of an order."""

    article: str
    pieces: Annotated[int, Meta(ge=1, le=100)]


@tool(idempotent=True, timeout_s=5)
def stock_level(article: str) -> int:
    """How many pieces of an article are in stock.

    Args:
        article: The article's name in the singular, such as `apple`.
    """
    if article not in STOCK:
        raise ToolCallFailed(f"there is no article {article!r}; there are: {', '.join(STOCK)}")
    return STOCK[article]


@tool(timeout_s=10)
async def place_order(
    lines: list[Line],
    context: ToolContext,
    ship_on: date | None = None,
    speed: Literal["normal", "express"] = "normal",
) -> dict[str, object]:
    """Place an order and return its number.

    Args:
        lines: What to order; at least one line.
        ship_on: The day on which it leaves the house; left out: today.
        speed: Express costs more.
    """
    await asyncio.sleep(0)  # here the request to the shop system would be awaited
    number = f"{context.task_id or 'local'}-{len(lines)}"
    pieces = sum(line.pieces for line in lines)
    return {"number": number, "pieces": pieces, "ship_on": str(ship_on or "today"), "speed": speed}
