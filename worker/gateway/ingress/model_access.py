"""Models, as far as the gateway itself calls them: to embed texts and to count tokens. Runs are the workers' affair.

Nothing is opened before the first call. Providers' keys are read from the gateway's own environment.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from providers import AgentConfig, Embedder, Message, ProviderError, TokenCounter, TurnRequest
from providers.pricing import PriceBook
from providers.token_estimate import estimated_tokens
from providers.tool_loop import TurnRecord
from queue_backends import Backend, CallOutcome, Task, TokenUsage
from worker.agents.directory import AgentDirectory, overridden
from worker.agents.roster import Roster
from worker.call_estimates import CallEstimates
from worker.call_gates import CallGate, ModelCallIntent
from worker.gate_row import leave_all, now_active
from worker.gateway.ingress.ask import Ask
from worker.gateway.ingress.gated_call import enter
from worker.gateway.ingress.submission import agent_as_model
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.live_settings import LiveSettings
from worker.providers_in_use import ProvidersInUse
from worker.settings import Settings
from worker.usage import UsageLedger, record_of

COUNT_LIMIT_S = 15.0
EMBED_LIMIT_S = 120.0


class Embedded(Struct, frozen=True, kw_only=True):
    """Vectors, in the order of their texts."""

    vectors: list[list[float]]
    input_tokens: int
    """Estimated."""


class ModelAccess:
    """Use it with `async with`; what it has opened is closed at the end."""

    def __init__(self, settings: Settings, backend: Backend, live: LiveSettings, roster: Roster) -> None:
        self._settings = settings
        self._backend = backend
        self._live = live
        self._roster = roster
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._providers: ProvidersInUse | None = None
        self._gates: tuple[CallGate, ...] = ()
        self._agents: AgentDirectory | None = None
        self._ledger = UsageLedger(keep_s=settings.usage_retention_days * 86_400.0)
        self._prices = PriceBook(settings.prices)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def config_of(self, agent: str, tenant: str) -> AgentConfig:
        """An agent's configuration. Raises what resolving it raises."""
        if self._agents is None:
            self._agents = AgentDirectory(self._roster)
            self._stack.callback(self._agents.close)
        return self._agents.resolve(Task(prompt="-", agent=agent, tenant=tenant)).config

    async def embed(self, call: Call, config: AgentConfig, texts: Sequence[str], *, agent: str = "") -> Embedded:
        """The vectors of some texts, within budgets and rate limits; one usage record.

        Raises a `ProviderError`, or `Problem` 400, 429 and 504.
        """
        providers = await self._opened()
        async with providers.lease(config) as provider:
            if not isinstance(provider, Embedder):
                raise Problem(
                    400, f"provider {provider.name!r} has no embeddings: name another model", code="no_embeddings"
                )
            intent = _intent(config, texts, agent, call.caller.tenant, provider.name)
            gates = now_active(self._gates)
            await enter(gates, intent)
            started_at, clock, outcome = time.time(), time.monotonic(), CallOutcome.FAILED
            try:
                async with asyncio.timeout(EMBED_LIMIT_S):
                    vectors = await provider.embed(config, texts)
                outcome = CallOutcome.COMPLETED
            except TimeoutError as error:
                raise Problem(504, f"no embeddings came within {EMBED_LIMIT_S:g} s", code="provider_timeout") from error
            except asyncio.CancelledError:
                outcome = CallOutcome.CANCELLED
                raise
            finally:
                took_ms = round((time.monotonic() - clock) * 1000)
                tokens = await self._note(gates, intent, outcome, texts, started_at, took_ms)
        return Embedded(vectors=vectors, input_tokens=tokens)

    async def _note(
        self,
        gates: Sequence[CallGate],
        intent: ModelCallIntent,
        outcome: CallOutcome,
        texts: Sequence[str],
        started_at: float,
        took_ms: int,
    ) -> int:
        """Write down what a call has used; returns its tokens."""
        tokens = sum(estimated_tokens(text, ()) for text in texts)
        usage = TokenUsage() if outcome is CallOutcome.FAILED else TokenUsage(input_tokens=tokens, output_tokens=0)
        entry = record_of(
            intent.task,
            turn=0,
            attempt=0,
            provider=intent.provider,
            model=intent.config.model,
            usage=usage,
            outcome=outcome,
            started_at=started_at,
            duration_ms=took_ms,
            estimated=True,
            prices=self._prices,
            is_free=outcome is CallOutcome.FAILED,
        )
        record = TurnRecord(
            turn=0, attempt=0, outcome=outcome, usage=usage, started_at=started_at, duration_ms=took_ms, is_last=True
        )
        entry = intent.receipt.noted_in(entry)
        await leave_all(gates, intent, record, entry)
        await self._backend.state.append_once([self._ledger.log_record(entry)])
        return tokens

    async def count_tokens(self, call: Call, ask: Ask) -> int:
        """Input tokens of a conversation, as its agent's vendor counts them; an estimate where the vendor does not say,
        and always for the client's tools. Raises `Problem` 404 if there is no such agent for the caller."""
        agent = agent_as_model(call, ask.agent).value
        task = ask.task()
        config = self.config_of(agent.slug, call.caller.tenant or agent.namespace)
        config = overridden(config, msgspec.structs.replace(task, overrides={"instructions": ask.instructions}))
        tools = sum(estimated_tokens(msgspec.json.encode(tool).decode(), ()) for tool in ask.client_tools)
        return tools + await self._counted(config, ask)

    async def _counted(self, config: AgentConfig, ask: Ask) -> int:
        providers = await self._opened()
        if not providers.routed(config):
            try:
                async with asyncio.timeout(COUNT_LIMIT_S), providers.lease(config) as provider:
                    if isinstance(provider, TokenCounter):
                        return await provider.count_tokens(config, ask.messages)
            except (ProviderError, TimeoutError):  # the gateway may have no key, where the workers have one
                return estimated_tokens(config.system_prompt, ask.messages)
        return estimated_tokens(config.system_prompt, ask.messages)

    async def _opened(self) -> ProvidersInUse:
        async with self._opening:
            if self._providers is None:
                self._providers = await self._open()
        return self._providers

    async def _open(self) -> ProvidersInUse:
        from providers.transport import Transport
        from worker.gates import open_gates
        from worker.metrics import Metrics
        from worker.remote_providers import RemoteDirectory, RemoteProviders
        from worker.swarm_plugin.everywhere import providers_of

        settings = self._settings
        directory = await self._stack.enter_async_context(RemoteDirectory(self._backend.state))
        remote = RemoteProviders(directory, settings.plugins.channel_options(), settings.plugins.shadow)
        self._stack.push_async_callback(remote.aclose)
        providers = providers_of(settings, self._live, remote.create)
        self._stack.push_async_callback(providers.close)
        http = Transport()
        self._stack.push_async_callback(http.aclose)
        self._gates = await self._stack.enter_async_context(
            open_gates(
                settings,
                self._backend.state,
                self._live,
                http,
                prices=self._prices,
                estimates=CallEstimates(),
                metrics=Metrics(prefix=settings.metrics_prefix, namespace=settings.namespace),
                definitions=self._roster.definitions,
            )
        )
        return providers


def _intent(config: AgentConfig, texts: Sequence[str], agent: str, tenant: str, provider: str) -> ModelCallIntent:
    """The call, as budgets and rate limits know calls: it has no output to speak of."""
    model = str(config.options.get("embedding_model") or config.model)
    config = msgspec.structs.replace(config, model=model, provider=provider, max_tokens=1)
    task = Task(id=f"emb_{secrets.token_hex(12)}", prompt="-", agent=agent, tenant=tenant)
    said = tuple(Message.user(text) for text in texts)
    request = TurnRequest(config=config, messages=said, task_id=task.id, tenant=tenant)
    return ModelCallIntent(id=f"{task.id}:0:0", task=task, config=config, request=request, provider=provider)
