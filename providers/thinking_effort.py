"""How much to think, for vendors that know it by a word. Pure."""

from __future__ import annotations

from providers.messages import Thinking


def effort_of(thinking: Thinking | None) -> str:
    """The reasoning effort that an agent asks for, by name or by a budget; empty for the model's own."""
    if thinking is None or thinking.effort or not thinking.budget_tokens:
        return thinking.effort if thinking else ""
    # ark's table from a token budget to an effort.
    if thinking.budget_tokens >= 16_384:
        return "high"
    return "medium" if thinking.budget_tokens >= 4_096 else "low"
