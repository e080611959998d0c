"""Which model answers when nobody configured one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec.structs import replace

from worker.cli.screen import Screen
from worker.errors import BadSetting
from worker.settings import Settings

_PRETENDERS = ("mock", "scripted")
_LOCAL_MAX_TOKENS = 400
"""The small model rambles, and its window is short."""


@asynccontextmanager
async def with_model(settings: Settings, screen: Screen) -> AsyncIterator[Settings]:
    """The settings with a model: the configured one, else the small local one, else the scripted provider.

    Says on stderr what it chose. Raises `BadSetting` for a provider without a model.
    """
    agent = settings.agent
    if agent.model or agent.route:
        yield settings
    elif agent.provider in _PRETENDERS:
        yield replace(settings, agent=replace(agent, model=agent.provider))
    elif agent.provider or agent.base_url:
        what = f"provider {agent.provider!r}" if agent.provider else f"the provider at {agent.base_url!r}"
        raise BadSetting(f"{what} needs a model: give --model, or set AGENT_MODEL")
    else:
        async with _fallback(settings, screen) as chosen:
            yield chosen


@asynccontextmanager
async def _fallback(settings: Settings, screen: Screen) -> AsyncIterator[Settings]:
    from worker.local_model import LocalModel

    if not LocalModel.available():
        screen.note(
            "no model is configured: the scripted provider answers, which only pretends. For real answers set "
            "AGENT_MODEL (or --model), or install shoal[local-model]",
            "warn",
        )
        yield replace(settings, agent=replace(settings.agent, model="mock", provider="mock"))
        return
    screen.note("no model is configured (AGENT_MODEL, --model): the small local model answers", "warn")
    max_tokens = settings.agent.max_tokens if "agent.max_tokens" in settings.sources else _LOCAL_MAX_TOKENS
    async with LocalModel() as local:
        agent = replace(
            settings.agent,
            model="smollm2-135m",
            provider="openai",
            base_url=local.base_url,
            max_tokens=max_tokens,
        )
        yield replace(settings, agent=agent)
