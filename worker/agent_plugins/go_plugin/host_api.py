"""What a plugin's process may ask of its host: AI Studio's `AIStudioManagementService`, as far as agents use it, and
its event service. Each process has a host of its own, so that who asks is known by the socket that it asks on.

Scopes are checked by the services of the message, with AI Studio's texts. What belongs to a message is refused while
none is being handled; values can always be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import NoReturn

from providers import ProviderError
from providers.errors import BudgetExceeded
from providers.messages import TextDelta
from worker.agent_plugins.errors import AgentPluginError, PluginDenied, PluginMisuse
from worker.agent_plugins.go_plugin.events import EventBus
from worker.agent_plugins.go_plugin.messages import (
    CallLLMRequest,
    CallLLMResponse,
    DatasourceResult,
    DeleteKVResponse,
    Event,
    ExecuteToolRequest,
    ExecuteToolResponse,
    KeyRequest,
    ListPluginsResponse,
    PublishRequest,
    PublishResponse,
    QueryDatasourceRequest,
    QueryDatasourceResponse,
    ReadKVResponse,
    ServiceContext,
    SubscribeRequest,
    WriteKVRequest,
    WriteKVResponse,
)
from worker.agent_plugins.go_plugin.scope import MessageScope
from worker.agent_plugins.go_plugin.translation import (
    arguments_of,
    calls_of,
    prompt_of,
    result_json,
    tools_of,
    usage_of,
)
from worker.agent_plugins.services import KeyValues
from worker.datasources.errors import DatasourceError, DatasourceNotFound

DEFAULT_RESULTS = 5
NO_MESSAGE = "no message is being handled: this can be asked for in HandleAgentMessage only"


class HostRefused(Exception):
    """A call is answered with a status of gRPC's."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status
        self.details = details


class HostApi:
    """The services of one process."""

    def __init__(self, plugin: int, kv: KeyValues, events: EventBus) -> None:
        """`kv` serves while no message is being handled."""
        self._plugin = plugin
        self._kv = kv
        self._events = events
        self.scope: MessageScope | None = None
        """The message that is being handled."""
        self.was_asked = asyncio.Event()
        """The process has found its host."""

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """A call is being answered in this block, for the message that is being handled, if there is one."""
        self.was_asked.set()
        with self.scope.answering() if self.scope is not None else contextlib.nullcontext():
            yield

    # Models

    async def call_llm(self, request: CallLLMRequest) -> AsyncIterator[CallLLMResponse]:
        """A model call. With `stream`, text comes as it is produced, and the last answer has what no other had."""
        scope = self._scope(request.context)
        llm = self._llm(scope, request.llm_id)
        system, prompt = prompt_of(request.messages, scope.tool_calls)
        sent = ""
        try:
            call = scope.services.call_llm(
                prompt,
                llm=llm,
                model=request.model,
                system=system,
                temperature=request.temperature if request.temperature > 0 else None,
                max_tokens=request.max_tokens if request.max_tokens > 0 else None,
                tools=tools_of(request.tools),
            )
            if request.stream:
                async for event in call:
                    if isinstance(event, TextDelta):
                        sent += event.text
                        yield CallLLMResponse(success=True, content=event.text)
            answer = await call
        except PluginDenied as error:
            _refuse(error)
        except (ProviderError, PluginMisuse) as error:
            yield CallLLMResponse(done=True, error_message=_failure(error))
            return
        if not answer.text.startswith(sent):  # the stream broke after it had begun, and the answer was another one
            yield CallLLMResponse(done=True, error_message="proxy call failed: the model's stream broke off")
            return
        yield CallLLMResponse(
            success=True,
            content=answer.text.removeprefix(sent),
            usage=usage_of(answer.usage),
            done=True,
            tool_calls=calls_of(scope.remembered(answer.tool_calls)),
        )

    def _llm(self, scope: MessageScope, number: int) -> str:
        """The slug of a model; empty: the worker's own, for an agent that has no app."""
        if not scope.llms and not number:
            return ""
        if number not in scope.llms:
            raise HostRefused("PERMISSION_DENIED", "LLM not allowed for this agent")
        return scope.llms[number]

    # Tools and data sources

    async def execute_tool(self, request: ExecuteToolRequest) -> ExecuteToolResponse:
        """A tool call; what goes wrong with the tool is an answer. Our tools have one operation each."""
        scope = self._scope(request.context)
        tool = scope.tool(request.tool_id)
        if tool is None:
            raise HostRefused("PERMISSION_DENIED", "tool not allowed for this agent")
        arguments = arguments_of(tool, request.params_json, request.payload_json)
        try:
            outcome = await scope.services.execute_tool(tool.name, arguments)
        except PluginDenied as error:
            _refuse(error)
        except (ProviderError, PluginMisuse) as error:
            return ExecuteToolResponse(error_message=str(error))
        if outcome.is_error:
            return ExecuteToolResponse(error_message=outcome.content)
        return ExecuteToolResponse(success=True, result_json=result_json(outcome.content), status_code=200)

    async def query_datasource(self, request: QueryDatasourceRequest) -> QueryDatasourceResponse:
        """The passages that are nearest to a question."""
        scope = self._scope(request.context)
        slug = scope.datasources.get(request.datasource_id)
        if slug is None:
            raise HostRefused("PERMISSION_DENIED", "datasource not allowed for this agent")
        try:
            passages = await scope.services.query_datasource(
                slug,
                request.query,
                max_results=request.max_results or DEFAULT_RESULTS,
                threshold=max(0.0, request.similarity_threshold),
            )
        except PluginDenied as error:
            _refuse(error)
        except DatasourceNotFound as error:
            raise HostRefused("NOT_FOUND", "datasource not found") from error
        except (DatasourceError, ProviderError, PluginMisuse) as error:
            return QueryDatasourceResponse(error_message=str(error))
        results = tuple(
            DatasourceResult(content=each.content, similarity_score=each.score, metadata=dict(each.metadata))
            for each in passages
        )
        return QueryDatasourceResponse(success=True, results=results)

    # Values

    async def write_kv(self, request: WriteKVRequest) -> WriteKVResponse:
        """Keep a value."""
        expires_in_s: float | None = None
        if request.expire_at is not None:
            expires_in_s = request.expire_at.seconds + request.expire_at.nanos / 1e9 - time.time()
        kv = self._values(request.context)
        try:
            if expires_in_s is not None and expires_in_s <= 0:
                return WriteKVResponse(created=not await kv.delete(request.key), message="expired already")
            return WriteKVResponse(created=await kv.set(request.key, request.value, expires_in_s=expires_in_s))
        except (PluginDenied, PluginMisuse) as error:
            _refuse(error)

    async def read_kv(self, request: KeyRequest) -> ReadKVResponse:
        """The value of a key."""
        try:
            value = await self._values(request.context).get(request.key)
        except (PluginDenied, PluginMisuse) as error:
            _refuse(error)
        if value is None:
            raise HostRefused("NOT_FOUND", f"key not found: {request.key}")
        return ReadKVResponse(value=value)

    async def delete_kv(self, request: KeyRequest) -> DeleteKVResponse:
        """Forget a value."""
        try:
            return DeleteKVResponse(deleted=await self._values(request.context).delete(request.key))
        except (PluginDenied, PluginMisuse) as error:
            _refuse(error)

    def _values(self, context: ServiceContext | None) -> KeyValues:
        self._check(context)
        return self.scope.services.kv if self.scope is not None else self._kv

    # The rest

    async def list_plugins(self, _request: KeyRequest) -> ListPluginsResponse:
        """AI Studio's SDK asks this to see whether it has a connection. Other plugins are no agent's business."""
        return ListPluginsResponse()

    async def publish(self, request: PublishRequest) -> PublishResponse:
        """Tell the plugin's other processes, and itself."""
        event_id = self._events.publish(request.topic, request.payload, f"plugin-{self._plugin}", request.direction)
        return PublishResponse(success=True, event_id=event_id)

    async def subscribe(self, request: SubscribeRequest) -> AsyncIterator[Event]:
        """Hear of events from now on."""
        if self._events.is_full:
            raise HostRefused("RESOURCE_EXHAUSTED", "too many subscriptions")
        async for event in self._events.events(None if request.subscribe_all else request.topic):
            yield event

    def _scope(self, context: ServiceContext | None) -> MessageScope:
        self._check(context)
        if self.scope is None:
            raise HostRefused("FAILED_PRECONDITION", NO_MESSAGE)
        return self.scope

    def _check(self, context: ServiceContext | None) -> None:
        if context is None or not context.plugin_id:
            raise HostRefused("UNAUTHENTICATED", "plugin authentication required")
        if context.plugin_id != self._plugin:
            raise HostRefused("UNAUTHENTICATED", "plugin not found")


def _refuse(error: AgentPluginError | PluginDenied) -> NoReturn:
    status = "PERMISSION_DENIED" if isinstance(error, PluginDenied) else "INVALID_ARGUMENT"
    raise HostRefused(status, str(error)) from error


def _failure(error: Exception) -> str:
    """What AI Studio's own gateway would have said."""
    if isinstance(error, BudgetExceeded):
        return f"proxy error (status 403): Budget limit exceeded: {error}"
    status = error.status if isinstance(error, ProviderError) else None
    return f"proxy error (status {status}): {error}" if status else f"proxy call failed: {error}"
