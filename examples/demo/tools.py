"""A Python function as a tool: its signature is the schema, its docstring the description."""

from typing import Annotated

from msgspec import Meta

from worker import tool


@tool(idempotent=True)
def average(numbers: Annotated[list[float], Meta(description="The numbers", min_length=1)]) -> float:
    """The arithmetic mean of some numbers."""
    return round(sum(numbers) / len(numbers), 2)
