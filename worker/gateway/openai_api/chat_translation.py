"""From a Chat Completions request to what is asked of an agent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from providers import ImagePart, Message, Role, TextPart, ToolCall, ToolOutcome
from queue_backends.messages import JsonObject
from worker.gateway.ingress.ask import Ask, addressed
from worker.gateway.ingress.images import image_of_url
from worker.gateway.openai_api.chat_request import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    DeveloperMessage,
    ImageContent,
    RefusalContent,
    ResponseFormat,
    SystemMessage,
    TextContent,
    ToolMessage,
    UserMessage,
)
from worker.gateway.openai_api.parameters import (
    check_count,
    check_range,
    choice_of,
    meta_of,
    priority_of,
    refused,
    stops_of,
    thinking_of,
    tool_of,
)


def ask_of(request: ChatRequest) -> Ask:
    """Raises `Problem` 400 for what cannot be served."""
    _check(request)
    tools = tuple(
        tool_of(tool.function.name, tool.function.description, tool.function.parameters, f"tools[{index}]")
        for index, tool in enumerate(request.tools or ())
    )
    choice = choice_of(request.tool_choice, tools)
    if choice.allowed is not None:
        tools = tuple(tool for tool in tools if tool.name in choice.allowed)
    messages, instructions = addressed(conversation_of(request.messages), instructions_of(request.messages))
    if not messages:
        raise refused("messages", "there is none: add one", code="invalid_value")
    return Ask(
        agent=request.model,
        messages=messages,
        instructions=instructions,
        client_tools=tools,
        tool_choice=choice.choice,
        only_tool=choice.only_tool,
        parallel_calls=request.parallel_tool_calls is not False,
        output_schema=_schema(request.response_format),
        max_tokens=request.max_completion_tokens or request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=stops_of(request.stop),
        thinking=thinking_of("reasoning_effort", request.reasoning_effort),
        priority=priority_of(request.service_tier),
        meta=meta_of("chat.completions", request.user or request.safety_identifier, request.metadata),
    )


def instructions_of(messages: Sequence[ChatMessage]) -> str:
    """All that system and developer messages say, wherever they stand."""
    found = (message for message in messages if isinstance(message, SystemMessage | DeveloperMessage))
    return "\n\n".join(text for message in found if (text := _text(message.content)))


def conversation_of(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """The other messages. Raises `Problem` 400 for a conversation that no vendor takes."""
    built: list[Message] = []
    open_calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if isinstance(message, ToolMessage):
            _add_outcome(built, message, open_calls, where)
            continue
        if isinstance(message, SystemMessage | DeveloperMessage):
            continue
        _check_answered(open_calls, where)
        parts = tuple(_user(message, where) if isinstance(message, UserMessage) else _assistant(message))
        if not parts:
            continue
        if isinstance(message, AssistantMessage):
            open_calls = {call.id: call.function.name for call in message.tool_calls or ()}
        built.append(Message(role=Role.USER if isinstance(message, UserMessage) else Role.ASSISTANT, parts=parts))
    _check_answered(open_calls, "messages")
    return tuple(built)


def _user(message: UserMessage, where: str) -> Iterator[TextPart | ImagePart]:
    if isinstance(message.content, str):
        if message.content:
            yield TextPart(text=message.content)
        return
    for index, content in enumerate(message.content):
        if isinstance(content, ImageContent):
            yield image_of_url(content.image_url.url, f"{where}.content[{index}].image_url.url")
        elif content.text:
            yield TextPart(text=content.text)


def _assistant(message: AssistantMessage) -> Iterator[TextPart | ToolCall]:
    if text := _text(message.content) or message.refusal:
        yield TextPart(text=text)
    for call in message.tool_calls or ():
        yield ToolCall(id=call.id, name=call.function.name, arguments=call.function.arguments or "{}")


def _text(content: str | Sequence[TextContent | RefusalContent] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text if isinstance(part, TextContent) else part.refusal for part in content)


def _add_outcome(built: list[Message], message: ToolMessage, open_calls: dict[str, str], where: str) -> None:
    name = open_calls.pop(message.tool_call_id, None)
    if name is None:
        raise refused(
            where,
            f"tool_call_id {message.tool_call_id[:70]!r} answers no call of the assistant's message before it",
            code="invalid_value",
        )
    outcome = ToolOutcome(call_id=message.tool_call_id, name=name, content=_text(message.content))
    last = built[-1]
    if last.role is Role.USER:
        built[-1] = Message(role=Role.USER, parts=(*last.parts, outcome))
    else:
        built.append(Message(role=Role.USER, parts=(outcome,)))


def _check_answered(open_calls: dict[str, str], where: str) -> None:
    if open_calls:
        raise refused(
            where,
            "an assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'; not answered: {', '.join(open_calls)[:300]}",
            code="invalid_value",
        )


def _schema(given: ResponseFormat | None) -> JsonObject | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return {"type": "object"}
    if given.json_schema is None:
        raise refused("response_format.json_schema", "it is missing", code="invalid_value")
    return given.json_schema.schema or {"type": "object"}


def _check(request: ChatRequest) -> None:
    if request.n not in (None, 1):
        raise refused("n", f"{request.n} is not supported: only one answer is given, leave it out or send 1")
    absent = {
        "logprobs": request.logprobs,
        "top_logprobs": request.top_logprobs,
        "logit_bias": request.logit_bias,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "audio": request.audio,
        "web_search_options": request.web_search_options,
        "moderation": request.moderation,
    }
    for name, value in absent.items():
        if value:
            raise refused(name, "it is not supported here: leave it out")
    if request.functions or request.function_call:
        raise refused("functions", "it is not supported: use 'tools' and 'tool_choice' instead")
    if request.modalities and request.modalities != ["text"]:
        raise refused("modalities", "only ['text'] is supported")
    if request.stream_options is not None and not request.stream:
        raise refused("stream_options", "it is only allowed with 'stream': true", code="invalid_value")
    check_range("temperature", request.temperature, 0, 2)
    check_range("top_p", request.top_p, 0, 1)
    check_count("max_completion_tokens", request.max_completion_tokens)
    check_count("max_tokens", request.max_tokens)
