"""Between AI Studio's messages and our own. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from providers.messages import Message, Part, Role, TextPart, ToolCall, ToolOutcome, ToolSpec
from queue_backends import TokenUsage
from queue_backends.messages import JsonObject
from worker.agent_plugins.go_plugin.messages import (
    AgentDatasourceInfo,
    AgentLLMInfo,
    AgentMessageRequest,
    AgentToolInfo,
    ConversationMessage,
    LLMFunctionCall,
    LLMMessage,
    LLMTool,
    LLMToolCall,
    LLMUsage,
    RequestContext,
)
from worker.agent_plugins.go_plugin.numbers import number_of
from worker.agent_plugins.go_plugin.scope import MessageScope

_KINDS: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
}


def config_texts(config: JsonObject) -> dict[str, str]:
    """A configuration as `Initialize` has it: texts as they are, everything else as JSON."""
    return {key: value if isinstance(value, str) else _json(value) for key, value in config.items()}


def message_request(
    scope: MessageScope, *, plugin: int, service_id: int, trace: Mapping[str, str]
) -> AgentMessageRequest:
    """What the plugin is told of one message."""
    request, context = scope.request, scope.request.context
    llm_ids, tool_ids, source_ids = (
        {name: number for number, name in of.items()} for of in (scope.llms, scope.tools, scope.datasources)
    )
    first = request.llms[0] if request.llms else None
    return AgentMessageRequest(
        session_id=request.session_id or context.task_id,
        user_message=request.message,
        available_tools=tuple(
            AgentToolInfo(
                id=tool_ids[tool.name],
                name=tool.name,
                slug=tool.name,
                description=tool.description,
                operations=(tool.name,),
            )
            for tool in request.tools
        ),
        available_datasources=tuple(
            AgentDatasourceInfo(
                id=source_ids[source.slug],
                name=source.name,
                description=source.description,
                db_source_type=source.store,
                privacy_score=source.privacy_score,
            )
            for source in request.datasources
        ),
        available_llms=tuple(
            AgentLLMInfo(
                id=llm_ids[llm.slug],
                name=llm.name,
                vendor=llm.provider,
                default_model=llm.model,
                allowed_models=llm.allowed_models,
                privacy_score=llm.privacy_score,
            )
            for llm in request.llms
        ),
        config_json=_json(request.config),
        history=tuple(_said(message) for message in request.history if message.text),
        context=RequestContext(
            request_id=context.task_id,
            vendor=first.provider if first else "",
            llm_id=llm_ids[first.slug] if first else 0,
            llm_slug=first.slug if first else "",
            app_id=number_of(context.app) if context.app else 0,
            metadata={
                "agent_config_id": str(number_of(context.agent)),
                "plugin_id": str(plugin),
                "session_id": request.session_id or context.task_id,
                "_service_broker_id": str(service_id),
                **({"user": context.user} if context.user else {}),
                **({"tenant": context.tenant} if context.tenant else {}),
            },
            trace_context=dict(trace),
        ),
        service_broker_id=service_id,
    )


def _said(message: Message) -> ConversationMessage:
    return ConversationMessage(role=message.role.value, content=message.text)


def prompt_of(messages: Sequence[LLMMessage], asked: Mapping[str, ToolCall]) -> tuple[str | None, list[Message]]:
    """The system prompt, if there is one, and the conversation. Tool calls that the protocol leaves out stand before
    their outcomes again, as `asked` has them."""
    system = [message.content for message in messages if message.role == "system" and message.content]
    said: list[tuple[Role, list[Part]]] = []
    is_new_turn = False
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "tool":
            known = asked.get(message.tool_call_id)
            call = known or ToolCall(id=message.tool_call_id or f"call-{index}", name=message.name or "tool")
            _put(said, Role.ASSISTANT, call, before_outcomes=not is_new_turn)
            outcome = ToolOutcome(call_id=call.id, name=call.name, content=message.content)
            _put(said, Role.USER, outcome)
            is_new_turn = False
            continue
        is_new_turn = message.role == "assistant"  # it may have no text, and have asked for tools all the same
        if message.content:
            _put(said, Role.ASSISTANT if is_new_turn else Role.USER, TextPart(text=message.content))
    return "\n\n".join(system) or None, [Message(role=role, parts=tuple(parts)) for role, parts in said]


def _put(said: list[tuple[Role, list[Part]]], role: Role, part: Part, *, before_outcomes: bool = False) -> None:
    if before_outcomes and len(said) > 1 and all(isinstance(each, ToolOutcome) for each in said[-1][1]):
        said[-2][1].append(part)  # a further call of the same turn, whose first outcome is there already
    elif said and said[-1][0] is role:
        said[-1][1].append(part)
    else:
        said.append((role, [part]))


def tools_of(tools: Sequence[LLMTool]) -> list[JsonObject] | None:
    """The tools that the plugin calls itself; None if there are none."""
    found: list[JsonObject] = []
    for tool in tools:
        if tool.function is not None:
            schema = json_object(tool.function.parameters_json) or {"type": "object"}
            described = {"name": tool.function.name, "description": tool.function.description}
            found.append({**described, "input_schema": schema})
    return found or None


def calls_of(calls: Sequence[ToolCall]) -> tuple[LLMToolCall, ...]:
    """What the model asks for."""
    return tuple(
        LLMToolCall(id=call.id, type="function", function=LLMFunctionCall(name=call.name, arguments=call.arguments))
        for call in calls
    )


def usage_of(usage: TokenUsage) -> LLMUsage:
    """Counts; what is not known is zero there."""
    return LLMUsage(
        prompt_tokens=usage.input_tokens or 0,
        completion_tokens=usage.output_tokens or 0,
        total_tokens=usage.total_tokens,
        cache_read_tokens=usage.cache_read_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
    )


def arguments_of(spec: ToolSpec, params_json: str, payload_json: str) -> JsonObject:
    """A tool's arguments out of AI Studio's two objects: parameters, each an array of texts, and a payload as it is.
    Text that is no JSON object counts as absent, as there."""
    properties = spec.input_schema.get("properties")
    known: JsonObject = properties if isinstance(properties, dict) else {}
    params = {name: _typed(value, known.get(name)) for name, value in (json_object(params_json) or {}).items()}
    return {**params, **(json_object(payload_json) or {})}


def _typed(value: Any, schema: Any) -> Any:
    """One parameter as the tool's schema wants it, as far as that can be told."""
    wanted = schema.get("type") if isinstance(schema, dict) else None
    if wanted == "array":
        items = schema.get("items")
        return [_typed(item, items) for item in value] if isinstance(value, list) else [_typed(value, items)]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or wanted in (None, "string"):
        return value
    try:
        found = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return found if isinstance(found, _KINDS.get(str(wanted), ())) else value


def result_json(content: str) -> str:
    """A tool's answer as JSON: as it is if it is some, else as a text."""
    try:
        msgspec.json.decode(content)
    except msgspec.DecodeError:
        return _json(content)
    return content


def json_object(text: str) -> JsonObject | None:
    """The object in a text; None if there is none."""
    try:
        found = msgspec.json.decode(text) if text else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
