"""How a plugin's model call is carried out: by the worker's own tool loop, with its gates, journal and usage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

import providers
from providers import AgentConfig, ChatProvider, ProviderError, ToolCall, ToolOutcome, ToolSpec, tool_loop
from providers.messages import Message as ChatMessage
from providers.tool_loop import Resumption
from queue_backends import Task
from worker.agent_plugins.call_output import CallOutput
from worker.agent_plugins.errors import PluginDenied, PluginMisuse
from worker.agent_plugins.message import Message
from worker.agent_plugins.prompts import client_tools_of, history_of, messages_of
from worker.agent_plugins.services import LlmAnswer, Prompt, Tools
from worker.agent_plugins.step_book import StepObserver, unique
from worker.agent_plugins.steps import Step
from worker.agents.fence import chosen_llm
from worker.agents.model import PermissionScope
from worker.datasources.search_spec import KIND as DATASOURCE
from worker.errors import AccessDenied
from worker.journal import STEP_TURNS
from worker.recall import Past
from worker.routing.run_providers import RunProviders
from worker.routing.run_router import RunRouter
from worker.tools.outcome import failed
from worker.turn_book import ROUTE


class Asked(Struct, frozen=True, kw_only=True):
    """What the plugin asks for; its digest tells whether a recorded answer is one to it."""

    messages: tuple[ChatMessage, ...]
    llm: str = ""
    model: str = ""
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    tools: Any = None
    output_schema: dict[str, Any] | None = None


class PlannedCall(Struct, frozen=True, kw_only=True):
    """A call that is ready to be made."""

    step: Step
    config: AgentConfig
    task: Task
    """With the call's own conversation."""
    tools: tuple[ToolSpec, ...]


class ModelCalls:
    """The model calls of one message."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def plan(self, prompt: Prompt, tools: Tools, key: str, **options: Any) -> PlannedCall:
        """Check a call and give it its step. Raises `PluginDenied`, `PluginMisuse`, `LimitReached`."""
        message, given = self._message, self._message.given
        message.permissions.need(PermissionScope.LLMS_PROXY)
        if tools == "auto":
            message.permissions.need(PermissionScope.TOOLS_EXECUTE)
        may_search = PermissionScope.DATASOURCES_QUERY in message.permissions.granted
        own = tuple(spec for spec in given.tool_specs() if may_search or spec.kind != DATASOURCE)
        conversation, for_plugin = messages_of(prompt), client_tools_of(tools, own)
        asked = Asked(messages=conversation, tools="auto" if tools == "auto" else for_plugin, **options)
        config = _config(given.agent.config, asked, self._place(asked.llm, asked.model), for_plugin)
        return PlannedCall(
            step=message.steps.begin("model", asked, key),
            config=config,
            task=replace(given.task, prompt="", history=history_of(conversation)),
            tools=own if tools == "auto" else tuple(tool.spec for tool in for_plugin),
        )

    def _place(self, llm: str, model: str) -> dict[str, Any]:
        """Where a call goes that does not go where the agent's calls go. Raises `PluginDenied`."""
        agent = self._message.given.agent
        if not llm and not model:
            return {}
        if agent.app is None:
            if llm:
                raise PluginDenied(f"LLM not allowed for this agent: {llm[:100]!r}: it has no app with models")
            return {"model": model, "route": ""}
        try:
            return chosen_llm(agent.llms, app=agent.app.slug, llm=llm, model=model)
        except AccessDenied as error:
            raise PluginDenied(f"LLM not allowed for this agent: {error}") from error

    async def make(self, call: PlannedCall, output: CallOutput) -> LlmAnswer:
        """The answer: recorded, or from the model. Raises a `ProviderError`, and what ends the run."""
        message = self._message
        message.sections.cut()
        await message.sections.advance()
        if (recorded := message.steps.answer(call.step)) is not None and recorded.error_type:
            raise error_of(recorded.error_type, recorded.error)
        try:
            run = await self._run(call, output)
        except ProviderError as error:
            output.broke_off()
            message.given.chunks.note(
                *message.steps.ended(call.step, error=str(error), error_type=type(error).__name__)
            )
            raise
        except BaseException:
            output.broke_off()
            raise
        await output.ended(run.output)
        return _answer(run, given=len(call.task.history))

    async def _run(self, call: PlannedCall, output: CallOutput) -> tool_loop.Run:
        around = self._message.given.around
        past = self._message.steps.recording.past_of(call.step.number) if call.step.is_recorded else Past()
        if around.providers.routed(call.config):
            router, taken = around.routing.begin(call.config, call.task, answered_before=past.answered_by)
            try:
                return await self._loop(call, output, past, None, router)
            finally:
                taken.give_back()
        own = RunProviders(around.providers)
        try:
            provider = await own.take(call.config)
            if not isinstance(provider, ChatProvider):
                raise PluginMisuse(
                    f"provider {provider.name!r} runs whole tasks and answers no single calls: give the agent's app a "
                    "model of another provider"
                )
            return await self._loop(call, output, past, provider, None)
        finally:
            own.give_back()

    async def _loop(
        self,
        call: PlannedCall,
        output: CallOutput,
        past: Past,
        provider: ChatProvider | None,
        router: RunRouter | None,
    ) -> tool_loop.Run:
        message, given, step = self._message, self._message.given, call.step
        name = ROUTE if provider is None else provider.name
        given.chunks.note(*message.steps.begun(step, provider=name, model=call.config.model or call.config.route))
        book = message.books.turn_book(step, call.config, name, past)

        told_of = {spec.name for spec in call.tools}

        async def call_tool(wanted: ToolCall) -> ToolOutcome:
            if wanted.name not in told_of:  # the plugin may have talked the model into it, without the scope for tools
                return failed(
                    wanted, f'tool "{wanted.name}" was not given; given: {", ".join(sorted(told_of)) or "none"}'
                )
            outcome = await given.call_tool(unique(step, wanted), book.tools)
            return replace(outcome, call_id=wanted.id)

        try:
            return await tool_loop.run(
                provider,
                call.config,
                call.task,
                call.tools,
                call_tool,
                output,
                StepObserver(step, message.steps, message.books, book, output),
                attempt=given.delivery.next_attempt,
                resumption=_told_again(past),
                router=router,
            )
        finally:
            book.close()


def _told_again(past: Past) -> Resumption:
    """Finished turns are gone through as if nobody had heard of them: the plugin has not. What the consumer has seen,
    its sections know."""
    turns = tuple(replace(turn, is_shown=False, announced=frozenset()) for turn in past.resumption.turns)
    return Resumption(turns=turns, used=past.resumption.used)


def _config(
    base: AgentConfig, asked: Asked, place: dict[str, Any], for_plugin: Sequence[providers.ClientTool]
) -> AgentConfig:
    changes: dict[str, Any] = {
        **place,
        "client_tools": tuple(for_plugin),
        "max_turns": min(base.max_turns, STEP_TURNS - 1),
        "output_schema": asked.output_schema,
        "max_run_tokens": None,  # of the whole message: `MessageBook` sees to it
    }
    own = {"system_prompt": asked.system, "temperature": asked.temperature, "max_tokens": asked.max_tokens}
    changes |= {field: value for field, value in own.items() if value is not None}
    try:
        return msgspec.convert({**msgspec.structs.asdict(base), **changes}, AgentConfig)
    except msgspec.ValidationError as error:
        raise PluginMisuse(f"the options of a model call do not fit: {error}") from error


def _answer(run: tool_loop.Run, given: int) -> LlmAnswer:
    return LlmAnswer(
        text=run.output,
        tool_calls=run.tool_calls,
        usage=run.usage,
        stop_reason=run.stop_reason,
        turns=run.turns,
        messages=run.messages[given:],
        structured=run.structured,
    )


def error_of(kind: str, message: str) -> ProviderError:
    """The error that a plugin met before its worker died."""
    found = getattr(providers.errors, kind, None)
    if isinstance(found, type) and issubclass(found, ProviderError):
        return found(message)
    return ProviderError(message)
