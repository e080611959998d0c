"""The services that a Python plugin keeps: they find the message that is being handled by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from providers import ToolOutcome
from queue_backends.messages import JsonObject
from worker.agent_plugins.errors import OutsideMessage
from worker.agent_plugins.services import AgentStream, KeyValues, LlmCall, PluginLog, PluginServices, Prompt, Tools
from worker.datasources.passages import Passage

_current: ContextVar[PluginServices | None] = ContextVar("services of the message that is being handled", default=None)


@contextmanager
def handling(services: PluginServices) -> Iterator[None]:
    """What is done inside, in tasks begun there too, belongs to this message."""
    token = _current.set(services)
    try:
        yield
    finally:
        _current.reset(token)


class CurrentServices:
    """The `PluginServices` that `initialize` is given. Outside of a message only `kv` and `log` work."""

    def __init__(self, kv: KeyValues, log: PluginLog) -> None:
        self._kv = kv
        self._log = log

    @property
    def kv(self) -> KeyValues:
        """The message's, or those of the agent's own namespace."""
        current = _current.get()
        return self._kv if current is None else current.kv

    @property
    def log(self) -> PluginLog:
        """The message's, or the plugin's own."""
        current = _current.get()
        return self._log if current is None else current.log

    def call_llm(
        self,
        prompt: Prompt,
        *,
        llm: str = "",
        model: str = "",
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        tools: Tools = None,
        output_schema: JsonObject | None = None,
        stream_to: AgentStream | None = None,
        key: str = "",
    ) -> LlmCall:
        """Call a model. Raises `OutsideMessage`, and what the message's own service raises."""
        return self._message("call_llm").call_llm(
            prompt,
            llm=llm,
            model=model,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            tools=tools,
            output_schema=output_schema,
            stream_to=stream_to,
            key=key,
        )

    async def execute_tool(
        self,
        name: str,
        arguments: JsonObject | None = None,
        *,
        stream_to: AgentStream | None = None,
        key: str = "",
    ) -> ToolOutcome:
        """Call a tool. Raises as `call_llm`."""
        return await self._message("execute_tool").execute_tool(name, arguments, stream_to=stream_to, key=key)

    async def query_datasource(
        self, datasource: str, question: str, *, max_results: int = 5, threshold: float = 0.0, key: str = ""
    ) -> list[Passage]:
        """Search a data source. Raises as `call_llm`."""
        return await self._message("query_datasource").query_datasource(
            datasource, question, max_results=max_results, threshold=threshold, key=key
        )

    def _message(self, what: str) -> PluginServices:
        current = _current.get()
        if current is None:
            raise OutsideMessage(f"{what} belongs to a message: call it in handle_message, or in a task begun there")
        return current
