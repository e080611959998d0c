"""`shoal provider test`: one small prompt to a provider, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from queue_backends import ChunkType, Task
from worker.cli.failures import FAILED, OK
from worker.cli.invocation import Invocation, examples, shoal_options
from worker.cli.live_values import live_settings
from worker.cli.wording import duration, usd
from worker.errors import BadSetting

if TYPE_CHECKING:
    from providers import AgentConfig, LLMProvider, ToolCall, ToolOutcome
    from queue_backends import TokenUsage
    from worker.cli.screen import Screen
    from worker.settings import Settings

_PROMPT = "Answer with the single word: pong"
_MAX_TOKENS = 1000


@click.command(
    "test",
    help="Send one small prompt to a provider, with the fleet's live settings, and show text, tokens, time and cost. "
    "Nothing is queued, and no tool is offered. The model is that of an agent which uses this provider, or of the "
    "provider's own settings, unless --model says otherwise.\n\n"
    + examples("shoal provider test anthropic", "shoal provider test openai --model gpt-4o-mini --prompt 'Say hi'"),
)
@click.argument("name")
@click.option("--model", default="", help="The model.")
@click.option("--prompt", default=_PROMPT, help=f"What to say.  [default: {_PROMPT}]")
@click.option("--max-tokens", type=click.IntRange(1), default=_MAX_TOKENS, show_default=True, help="Output tokens.")
@shoal_options
def try_provider(call: Invocation, name: str, model: str, prompt: str, max_tokens: int) -> int:
    """Exit code 1 if it fails."""
    return call.wait_for(_try(call, name, model, prompt, max_tokens))


async def _try(call: Invocation, name: str, model: str, prompt: str, max_tokens: int) -> int:
    from msgspec.structs import replace

    from worker.provider_directory import ProviderDirectory

    settings = call.settings()
    async with live_settings(call) as (live, state), ProviderDirectory.opened(settings, live, state) as known:
        await known.entry(name)
        config = replace(known.config_for(name, model), max_tokens=max_tokens, max_turns=1, output_schema=None)
        if not config.model:
            raise BadSetting(f"no agent uses {name}, and plugin.{name}.model is not set: give --model")
        async with known.in_use() as used, used.lease(config) as provider:
            return await _ask(call.screen, settings, provider, config, prompt)


async def _ask(screen: Screen, settings: Settings, provider: LLMProvider, config: AgentConfig, prompt: str) -> int:
    from providers import ProviderError

    started_at = time.monotonic()
    printer = _Printer(screen)
    try:
        output, usage = await provider.run_task(config, Task(id="provider-test", prompt=prompt), (), _no_tool, printer)
    except ProviderError as error:
        if printer.has_written:
            screen.line()
        screen.note(f"✗ {error}", "bad")
        if screen.as_json:
            screen.json({"ok": False, "provider": provider.name, "model": config.model, "error": str(error)})
        return FAILED
    took_s = time.monotonic() - started_at
    cost_usd = _cost(settings, provider, config, usage)
    if screen.as_json:
        _json(screen, provider, config, output, usage, took_s, cost_usd)
        return OK
    if not printer.has_written:
        screen.write(output)
    screen.line()
    screen.line()
    first = f", first after {duration(printer.first_s)}" if printer.first_s is not None else ""
    tokens = f"{_or_unknown(usage.input_tokens)} in, {_or_unknown(usage.output_tokens)} out"
    cost = "price not known" if cost_usd is None else usd(cost_usd)
    screen.line(f"✓ {config.model}: {tokens} · {duration(took_s)}{first} · {cost}", "good")
    return OK


class _Printer:
    """The `ChunkFn` that shows the answer as it comes."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._started_at = time.monotonic()
        self.has_written = False
        self.first_s: float | None = None

    async def __call__(self, kind: ChunkType, content: str, metadata: Mapping[str, Any] | None = None, /) -> None:
        from worker.cli.screen import clean

        if self.first_s is None:
            self.first_s = time.monotonic() - self._started_at
        if kind is ChunkType.CONTENT and not self._screen.as_json:
            self.has_written = True
            self._screen.write(clean(content))


def _json(
    screen: Screen,
    provider: LLMProvider,
    config: AgentConfig,
    output: str,
    usage: TokenUsage,
    took_s: float,
    cost_usd: float | None,
) -> None:
    screen.json(
        {
            "ok": True,
            "provider": provider.name,
            "model": config.model,
            "output": output,
            "usage": usage,
            "took_ms": round(took_s * 1000),
            "cost_usd": cost_usd,
        }
    )


def _cost(settings: Settings, provider: LLMProvider, config: AgentConfig, usage: TokenUsage) -> float | None:
    from providers.pricing import PriceBook

    return PriceBook(settings.prices).cost_usd(provider.name, config.model, usage)


def _or_unknown(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)


async def _no_tool(call: ToolCall) -> ToolOutcome:
    from providers import ToolOutcome

    return ToolOutcome(call_id=call.id, name=call.name, content="there are no tools here", is_error=True)
