"""What a process may ask of its host, and when."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator
from typing import NoReturn, cast

import pytest

from providers.errors import BudgetExceeded
from tests.agent_plugins.go_plugin.test_translation import scope
from worker.agent_plugins.go_plugin.events import EventBus
from worker.agent_plugins.go_plugin.host_api import HostApi, HostRefused
from worker.agent_plugins.go_plugin.messages import (
    CallLLMRequest,
    Event,
    ExecuteToolRequest,
    KeyRequest,
    LLMMessage,
    QueryDatasourceRequest,
    ServiceContext,
    Timestamp,
    WriteKVRequest,
)
from worker.agent_plugins.go_plugin.scope import MessageScope
from worker.agent_plugins.request import AgentRequest, RequestContext
from worker.agent_plugins.services import KeyValues, PluginServices

ME = ServiceContext(plugin_id=7)


class Kept:
    """Values in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    async def set(self, key: str, value: bytes | str, *, expires_in_s: float | None = None) -> bool:
        is_new = key not in self.values
        self.values[key] = value if isinstance(value, bytes) else value.encode()
        return is_new

    async def delete(self, key: str) -> bool:
        return self.values.pop(key, None) is not None

    async def list(self, prefix: str = "") -> list[str]:
        return sorted(key for key in self.values if key.startswith(prefix))


def host_api(kv: KeyValues | None = None) -> HostApi:
    """Of the plugin with the number 7, which handles no message."""
    return HostApi(7, Kept() if kv is None else kv, EventBus())


async def test_outside_of_a_message_there_are_values_only() -> None:
    """Given a process that handles no message, then models, tools and data sources are refused, as what they would be
    asked for is nobody's; values can be kept."""
    api = host_api()
    with pytest.raises(HostRefused, match="FAILED_PRECONDITION: no message is being handled"):
        await api.execute_tool(ExecuteToolRequest(context=ME))
    with pytest.raises(HostRefused, match="FAILED_PRECONDITION"):
        await api.query_datasource(QueryDatasourceRequest(context=ME))
    with pytest.raises(HostRefused, match="FAILED_PRECONDITION"):
        await anext(api.call_llm(CallLLMRequest(context=ME)))
    assert (await api.write_kv(WriteKVRequest(context=ME, key="k", value=b"v"))).created
    assert (await api.read_kv(KeyRequest(context=ME, key="k"))).value == b"v"


async def test_a_value_that_has_expired_already() -> None:
    """Given an expiry in the past, then the value is not kept, and what was there before is gone."""
    kv = Kept()
    api = host_api(kv)
    await api.write_kv(WriteKVRequest(context=ME, key="k", value=b"v"))
    past = Timestamp(seconds=int(time.time()) - 10)
    await api.write_kv(WriteKVRequest(context=ME, key="k", value=b"w", expire_at=past))
    assert kv.values == {}


class OutOfBudget:
    """Services of a message whose agent has nothing left."""

    def call_llm(self, *_: object, **__: object) -> NoReturn:
        raise BudgetExceeded("used up")


async def test_a_budget_that_is_used_up_reads_as_in_the_original() -> None:
    """Given a model call that no budget allows, then its error begins as AI Studio's gateway would have said it."""
    api = host_api()
    request = AgentRequest(message="hello", context=RequestContext(task_id="t", agent="bot"))
    api.scope = MessageScope(request, cast("PluginServices", OutOfBudget()))
    asked = CallLLMRequest(context=ME, messages=(LLMMessage(role="user", content="q"),))
    answer = await anext(api.call_llm(asked))
    assert (answer.success, answer.done) == (False, True)
    assert answer.error_message.startswith("proxy error (status 403): Budget limit exceeded")


@pytest.mark.parametrize("context", [None, ServiceContext(), ServiceContext(plugin_id=8)])
async def test_who_asks_must_be_the_plugin(context: ServiceContext | None) -> None:
    """Given a call without the plugin's own number, then it is not authenticated."""
    with pytest.raises(HostRefused, match="UNAUTHENTICATED: plugin "):
        await host_api().read_kv(KeyRequest(context=context, key="k"))


def test_what_a_process_asks_for_belongs_to_the_message() -> None:
    """Given a call that comes in by another way than the message, then it is answered in the message's context: in its
    trace."""
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace", default="another")

    def begun() -> MessageScope:
        trace.set("of the message")
        return scope()

    api = host_api()
    api.scope = contextvars.copy_context().run(begun)

    def answered() -> str:
        with api.answering():
            return trace.get()

    assert contextvars.copy_context().run(answered) == "of the message"


async def _next(events: AsyncIterator[Event]) -> Event:
    return await anext(events)


async def test_a_subscriber_hears_its_own_topic_only() -> None:
    """Given events of two topics, then who subscribed to one hears that one."""
    events = EventBus()
    heard = asyncio.create_task(_next(events.events("news")))
    await asyncio.sleep(0)
    events.publish("weather", b"1", "plugin-7", 0)
    events.publish("news", b"2", "plugin-7", 0)
    assert (await heard).payload == b"2"
