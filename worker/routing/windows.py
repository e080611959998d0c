"""How long a conversation each target takes: asked only once one was too long for another."""

from __future__ import annotations

import asyncio

import structlog

from providers import AgentConfig, LLMProvider, ModelInfoProvider, ProviderError
from providers.model_facts import facts
from worker.routing.route import RouteTarget
from worker.routing.target_state import TargetState

_LIMIT_S = 5.0

log = structlog.get_logger(__name__)


async def window_of(
    target: RouteTarget, state: TargetState, provider: LLMProvider | None, config: AgentConfig
) -> int | None:
    """Tokens of the target's window: as its route says, else the provider, else the list of known models; None if
    none of them knows."""
    if target.max_context is not None:
        return target.max_context
    if state.context_window is None:
        told = await _told(provider, config) if provider is not None else None
        if told is None and (known := facts(target.provider, target.model)) is not None:
            told = known.context_window
        state.context_window = told
    return state.context_window


async def _told(provider: LLMProvider, config: AgentConfig) -> int | None:
    if not isinstance(provider, ModelInfoProvider):
        return None
    try:
        async with asyncio.timeout(_LIMIT_S):
            return (await provider.model_info(config)).context_window
    except (ProviderError, TimeoutError) as error:
        log.debug("a model's window is not known", model=config.model, error=str(error) or "no answer")
        return None
