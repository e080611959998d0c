"""A provider whose model is called by another process, over MIRASTACK's plugin protocol."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar

from providers.errors import BadResponse, InvalidRequest, ProviderError, ProviderTimeout, StreamBroken, Unavailable
from providers.interfaces import ChatProvider, ConfigParam, Health
from providers.messages import (
    AgentConfig,
    Message,
    Role,
    StopReason,
    TextDelta,
    TextPart,
    ThinkingDelta,
    TurnEnd,
    TurnEvent,
    TurnRequest,
)
from providers.remote.channel import ChannelOptions
from providers.remote.client import PluginClient, stream_output
from providers.remote.clients import InstanceClients, Instances
from providers.remote.faults import CallFailed, error_of, error_of_call
from providers.remote.instances import RemoteInstance
from providers.remote.payload import end_of, params_of, prompt_params, thinking_of
from providers.remote.plugin_messages import ChatStreamResponse
from providers.remote.tenants import tenant_id
from queue_backends import TokenUsage

RETRY_BASE_S = 0.25
RETRY_MOST_S = 5.0

T = TypeVar("T")
Events = AsyncGenerator[TurnEvent, None]


class RemoteProvider(ChatProvider):
    """All registered processes of one provider, taking turns.

    A turn goes to a healthy process. If that cannot be reached, another one is tried, up to `config.max_retries` times,
    as long as nothing was streamed. `config.options` may have `stream: false`, which asks for each answer in one piece:
    other makers' providers tell the usage in no other way.
    """

    def __init__(
        self, name: str, instances: Instances, options: ChannelOptions | None = None, *, pushes_config: bool = True
    ) -> None:
        """Without `pushes_config`, somebody else hands settings to the processes, such as their engine."""
        self.name = name
        self._pushes_config = pushes_config
        self._clients = InstanceClients(name, instances, options)
        self._no_stream: set[str] = set()
        """Instances that have no ChatStream."""

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One turn, by whichever process answers."""
        tenant, tried = tenant_id(request.tenant), set[str]()
        for attempt in range(request.config.max_retries + 1):
            begun = False
            try:
                instance = self._clients.pick(tenant, tried)
                tried.add(instance.instance_id)
                async with (
                    self._clients.to(instance) as client,
                    aclosing(self._turn(client, instance, request, tenant)) as events,
                ):
                    async for event in events:
                        begun = True
                        yield event
            except ProviderError as error:
                if begun and isinstance(error, Unavailable) and not isinstance(error, StreamBroken):
                    raise StreamBroken(
                        str(error), provider=self.name, usage=error.usage, retry_after_s=error.retry_after_s
                    ) from error
                if begun or type(error) is not Unavailable or attempt == request.config.max_retries:
                    raise
            else:
                return
            await self._pause(attempt, tenant, tried)

    async def _pause(self, attempt: int, tenant: str, tried: set[str]) -> None:
        """Wait before the next attempt, unless there is another process to ask."""
        try:
            if self._clients.pick(tenant, tried).instance_id not in tried:
                return
        except Unavailable:
            tried.clear()
        await asyncio.sleep(random.uniform(0.5, 1) * min(RETRY_MOST_S, RETRY_BASE_S * 2**attempt))  # noqa: S311 - jitter

    def _turn(self, client: PluginClient, instance: RemoteInstance, request: TurnRequest, tenant: str) -> Events:
        """Streamed where that loses nothing: other makers' streams have no place for tool calls."""
        wants_stream = request.config.options.get("stream", True) and instance.instance_id not in self._no_stream
        if wants_stream and (instance.is_shoal or not request.tools):
            return self._streamed(client, instance, request, tenant)
        return self._whole(client, instance, request, tenant)

    async def _streamed(
        self, client: PluginClient, instance: RemoteInstance, request: TurnRequest, tenant: str
    ) -> Events:
        params = params_of(request, full=instance.is_shoal)
        texts: list[str] = []
        try:
            async with aclosing(self._pieces(client, params, request.config, tenant)) as pieces:
                async for piece in pieces:
                    if piece.error:
                        raise error_of(piece.error, stream_output(piece), self.name)
                    if piece.thinking:
                        yield ThinkingDelta(piece.thinking)
                    if piece.token:
                        texts.append(piece.token)
                        yield TextDelta(piece.token)
                    if piece.is_final:
                        for event in self._ended(piece, "".join(texts), request):
                            yield event
                        return
        except CallFailed as failed:
            if not failed.is_unimplemented:
                raise error_of_call(failed, self.name) from failed
            self._no_stream.add(instance.instance_id)
        else:
            raise StreamBroken(f"{self.name}: the stream ended before the answer did", provider=self.name)
        async with aclosing(self._whole(client, instance, request, tenant)) as events:
            async for event in events:
                yield event

    async def _pieces(
        self, client: PluginClient, params: Mapping[str, str], config: AgentConfig, tenant: str
    ) -> AsyncGenerator[ChatStreamResponse, None]:
        """The pieces of a stream, each within its time limit."""
        stream = client.chat_stream(params, tenant_id=tenant)
        limit_s = config.first_event_timeout_s
        async with aclosing(stream) as pieces:
            while True:
                piece = await self._within(anext(pieces, None), limit_s, "a piece of the stream")
                if piece is None:
                    return
                yield piece
                limit_s = config.idle_timeout_s

    def _ended(self, piece: ChatStreamResponse, text: str, request: TurnRequest) -> list[TurnEvent]:
        if piece.result_json:
            return [self._end(stream_output(piece))]
        parts = (TextPart(text=text),) if text else ()
        message = Message(role=Role.ASSISTANT, parts=parts)
        return [
            TurnEnd(message=message, stop_reason=StopReason.END_TURN, usage=TokenUsage(), model=request.config.model)
        ]

    async def _whole(self, client: PluginClient, instance: RemoteInstance, request: TurnRequest, tenant: str) -> Events:
        params = params_of(request, full=instance.is_shoal)
        end = self._end(await self._executed(client, params, request.config, tenant, request))
        if thinking := thinking_of(end):
            yield ThinkingDelta(thinking)
        if end.message.text:
            yield TextDelta(end.message.text)
        yield end

    async def _executed(
        self,
        client: PluginClient,
        params: Mapping[str, str],
        config: AgentConfig,
        tenant: str,
        request: TurnRequest | None = None,
    ) -> dict[str, str]:
        """Execute's outputs. Raises a `ProviderError`."""
        limit_s = config.first_event_timeout_s
        call = client.execute(
            params,
            tenant_id=tenant,
            execution_id=request.task_id if request else "",
            step_id=f"{request.turn}:{request.attempt}" if request else "",
            timeout_s=limit_s,
        )
        try:
            answer = await self._within(call, limit_s + 1, "the answer")  # the call's own limit comes first
        except CallFailed as failed:
            raise error_of_call(failed, self.name) from failed
        if not answer.success:
            raise error_of(answer.error, answer.output, self.name)
        return answer.output

    def _end(self, output: Mapping[str, str]) -> TurnEnd:
        try:
            return end_of(output)
        except (InvalidRequest, ValueError) as error:
            raise BadResponse(f"{self.name}: the answer cannot be read: {error}", provider=self.name) from error

    async def _within(self, call: Awaitable[T], limit_s: float, what: str) -> T:
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                return await call
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise ProviderTimeout(
                f"{self.name}: {what} did not come within {limit_s:g} s", provider=self.name
            ) from error

    # Capabilities

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text."""
        instance = self._clients.pick("")
        params = prompt_params(config, system_prompt, prompt, max_tokens, full=instance.is_shoal)
        async with self._clients.to(instance) as client:
            return (await self._executed(client, params, config, "")).get("content", "")

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order. Raises `InvalidRequest` if the plugin has no embeddings."""
        async with self._clients.to(self._clients.pick("")) as client:
            try:
                answer = await client.embed(config.model, list(texts), timeout_s=config.first_event_timeout_s)
            except CallFailed as failed:
                if failed.is_unimplemented:
                    raise InvalidRequest(
                        f"{self.name}: this provider has no embeddings", provider=self.name
                    ) from failed
                raise error_of_call(failed, self.name) from failed
        if answer.error:
            raise error_of(answer.error, {}, self.name)
        if len(answer.vectors) != len(texts):
            problem = f"{self.name}: {len(answer.vectors)} vectors came for {len(texts)} texts"
            raise BadResponse(problem, provider=self.name)
        return answer.vectors

    async def health_check(self, config: AgentConfig) -> Health:
        """Ask every process. One that is well is enough."""
        instances = self._clients.all()
        if not instances:
            return Health(healthy=False, message="no process of this remote provider is registered at present")
        found = await asyncio.gather(*(self._health_of(instance) for instance in instances))
        well = next((health for health in found if health.healthy), None)
        details = {
            f"{each.instance_id} at {each.address}": "healthy" if health.healthy else health.message or "unhealthy"
            for each, health in zip(instances, found, strict=True)
        }
        return Health(healthy=well is not None, message=(well or found[0]).message, details=details)

    async def _health_of(self, instance: RemoteInstance) -> Health:
        async with self._clients.to(instance) as client:
            try:
                return await client.health()
            except CallFailed as failed:
                return Health(healthy=False, message=str(failed))

    def describe(self) -> Sequence[ConfigParam]:
        """The settings that its processes have declared."""
        return max((each.params for each in self._clients.all()), key=len, default=())

    async def config_updated(self, values: Mapping[str, str]) -> None:
        """Hand settings to every process. Raises a `ProviderError` if one does not take them."""
        if self._pushes_config:
            await self._with_each(lambda client: client.config_updated(values))

    async def _with_each(self, call: Callable[[PluginClient], Awaitable[str]]) -> None:
        for instance in self._clients.all():
            async with self._clients.to(instance) as client:
                try:
                    refusal = await call(client)
                except CallFailed as failed:
                    raise error_of_call(failed, self.name) from failed
            if refusal:
                raise InvalidRequest(f"{self.name}: {refusal}", provider=self.name)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._clients.aclose()
