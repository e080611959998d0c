"""What Gemini models of each generation take, as far as a request has to know it. Pure.

Source: https://ai.google.dev/gemini-api/docs, the pages on thinking, structured output and function calling.
"""

from __future__ import annotations

import re

import msgspec

from providers.interfaces import ModelInfo
from providers.messages import Thinking
from queue_backends.messages import JsonObject

_GENERATION = re.compile(r"gemini-(\d+)")
_NEWEST = 3

# Google's own table for its OpenAI-compatible endpoint.
_BUDGET_BY_EFFORT = {"none": 0, "minimal": 512, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576}


def generation(model: str) -> int:
    """The number in the model's name; names without one (`gemini-flash-latest`, a tuned model) count as newest."""
    match = _GENERATION.search(model)
    return int(match[1]) if match else _NEWEST


def takes_schema_with_tools(model: str) -> bool:
    """Whether an output schema and function declarations may be in one request; older models refuse it."""
    return generation(model) >= 3


def takes_media_in_outcomes(model: str) -> bool:
    """Whether pictures may be inside a function's response; for older models they follow as the user's."""
    return generation(model) >= 3


def checks_signatures(model: str) -> bool:
    """Whether a call without its thought signature is refused."""
    return generation(model) >= 3


def thinking_config(model: str, thinking: Thinking) -> JsonObject | None:
    """`thinkingConfig`: a level for models that know levels, else a budget; the thoughts are asked for with it."""
    if thinking.effort and generation(model) >= 3:
        return {"thinkingLevel": thinking.effort.upper(), "includeThoughts": True}
    budget = thinking.budget_tokens
    if budget is None and thinking.effort:
        budget = _BUDGET_BY_EFFORT.get(thinking.effort)
    if budget is None:
        return None
    return {"thinkingBudget": budget, "includeThoughts": budget != 0}


def with_abilities(model: str, told: ModelInfo) -> ModelInfo:
    """What is true of every Gemini that answers, which the API does not tell: it takes tools and pictures."""
    is_chat = "gemini-" in model and "embedding" not in model
    return msgspec.structs.replace(told, tools=True, images=True) if is_chat else told
