"""The services of one message: each call goes through the run's gates, journal, catalogue and stream."""

from __future__ import annotations

import msgspec
import structlog

from providers import ToolCall, ToolOutcome
from queue_backends import ChunkType
from queue_backends.messages import JsonObject
from worker.agent_plugins.call_output import CallOutput, Tell
from worker.agent_plugins.errors import PluginDenied, PluginMisuse
from worker.agent_plugins.key_values import StoredValues
from worker.agent_plugins.message import Message
from worker.agent_plugins.model_call import HostedCall
from worker.agent_plugins.model_calls import ModelCalls
from worker.agent_plugins.services import AgentStream, LlmAnswer, Prompt, Tools
from worker.agent_plugins.step_values import StepValues
from worker.agent_plugins.steps import Step
from worker.agent_plugins.stream import MessageStream
from worker.agents.model import PermissionScope
from worker.approvals.tool_approvals import needs_approval
from worker.datasources.embedding_call import Behalf
from worker.datasources.errors import DatasourceError, DatasourceNotFound, QueryFailed
from worker.datasources.passages import Passage
from worker.datasources.search_spec import KIND as DATASOURCE
from worker.datasources.search_spec import tool_name

log = structlog.get_logger("agent_plugin")


class MessageServices:
    """The `PluginServices` of one message."""

    def __init__(self, message: Message, stream: MessageStream) -> None:
        self._message = message
        self._stream = stream
        self._models = ModelCalls(message)
        given = message.given
        self.kv = StepValues(message, StoredValues(given.around.backend.state, message.package.id, message.namespace))
        self.log = log.bind(plugin=message.package.id, task=given.task.id, agent=given.task.agent)

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
    ) -> HostedCall:
        """Call a model; nothing is sent before the call is awaited or iterated over."""
        message, shows = self._message, self._shows(stream_to)
        call = self._models.plan(
            prompt,
            tools,
            key,
            llm=llm,
            model=model,
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            output_schema=output_schema,
        )

        async def run(tell: Tell | None) -> LlmAnswer:
            output = CallOutput(call.step, message.sections if shows else None, tell)
            return await message.service(self._models.make(call, output))

        return HostedCall(run, message.start, f"model call {call.step.name}")

    async def execute_tool(
        self,
        name: str,
        arguments: JsonObject | None = None,
        *,
        stream_to: AgentStream | None = None,
        key: str = "",
    ) -> ToolOutcome:
        """Call a tool of the agent's."""
        message = self._message
        message.permissions.need(PermissionScope.TOOLS_EXECUTE)
        given = message.given
        kind = next((spec.kind for spec in given.tool_specs() if spec.name == name), None)
        if kind is None:
            raise PluginDenied(f"tool not allowed for this agent: {str(name)[:100]!r}")
        if kind == DATASOURCE:
            message.permissions.need(PermissionScope.DATASOURCES_QUERY)
        shows = self._shows(stream_to)
        asked = {"name": name, "arguments": arguments or {}}
        step = message.steps.begin("tool", asked, key)
        return await message.service(self._tool(step, name, arguments or {}, shows=shows))

    async def _tool(self, step: Step, name: str, arguments: JsonObject, *, shows: bool) -> ToolOutcome:
        message, given = self._message, self._message.given
        call = ToolCall(id=f"step-{step.number}", name=name, arguments=msgspec.json.encode(arguments).decode())
        message.sections.cut()
        await message.sections.advance()
        if shows:
            named = {"id": call.id, "name": name, "arguments": arguments}
            await message.sections.say_alone(f"c{step.number}", ChunkType.TOOL_CALL, name, named)
        recording = message.steps.recording
        outcome = recording.outcomes.get(f"{step.first_turn}/{call.id}") if step.is_recorded else None
        is_new = outcome is None
        book = message.books.tool_book(step, recording.interrupted)
        if outcome is None:
            given.chunks.note(*message.steps.begun(step))
            outcome = await given.call_tool(call, book)
        if shows:
            said = {"id": call.id, "name": name, "is_error": outcome.is_error}
            await message.sections.say_alone(f"r{step.number}", ChunkType.TOOL_RESULT, outcome.content, said)
        if is_new:
            await book.after_tool(call, outcome)
        return outcome

    async def query_datasource(
        self, datasource: str, question: str, *, max_results: int = 5, threshold: float = 0.0, key: str = ""
    ) -> list[Passage]:
        """Search a data source of the agent's."""
        message = self._message
        message.permissions.need(PermissionScope.DATASOURCES_QUERY)
        if not any(source.slug == datasource for source in message.given.agent.datasources):
            raise PluginDenied(f"datasource not allowed for this agent: {str(datasource)[:100]!r}")
        agent, tool = message.given.agent, tool_name(datasource)
        if needs_approval(agent.config, agent.role, tool):
            raise PluginDenied(f"a person has to approve searches of datasource {datasource!r}: call its tool {tool!r}")
        asked = [datasource, question, max_results, threshold]
        step = message.steps.begin("query", asked, key)
        return await message.service(self._query(step, datasource, question, max_results, threshold))

    async def _query(
        self, step: Step, datasource: str, question: str, max_results: int, threshold: float
    ) -> list[Passage]:
        message, chunks = self._message, self._message.given.chunks
        message.sections.cut()
        await message.sections.advance()
        if (answer := message.steps.answer(step)) is not None:
            if answer.error_type == DatasourceNotFound.__name__:
                raise DatasourceNotFound(answer.error)
            if answer.error_type:
                raise QueryFailed(answer.error.removeprefix("query failed: "))
            return msgspec.convert(answer.value, list[Passage])
        chunks.note(*message.steps.begun(step))
        await chunks.store()
        try:
            found = await self._search(step, datasource, question, max_results, threshold)
        except DatasourceError as error:
            chunks.note(*message.steps.ended(step, error=str(error), error_type=type(error).__name__))
            raise
        chunks.note(*message.steps.ended(step, msgspec.to_builtins(found)))
        await chunks.store()
        return found

    async def _search(
        self, step: Step, datasource: str, question: str, max_results: int, threshold: float
    ) -> list[Passage]:
        given = self._message.given
        if given.around.datasources is None:
            raise QueryFailed("this worker has no data sources")
        app, agent, task = given.agent.app, given.agent.agent, given.task
        namespace = app.namespace if app is not None else agent.namespace if agent is not None else ""
        return await given.around.datasources.query(
            datasource,
            question,
            namespace=namespace,
            max_results=max_results,
            threshold=threshold,
            behalf=Behalf(
                task_id=task.id,
                call_id=f"step-{step.number}",
                agent=given.agent.config.name,
                tenant=task.tenant,
                session_id=task.session_id,
            ),
        )

    def _shows(self, stream: AgentStream | None) -> bool:
        if stream is not None and stream is not self._stream:
            raise PluginMisuse("stream_to is not the stream of this message: pass on what handle_message was given")
        return stream is not None and not self._stream.ended.is_set()
