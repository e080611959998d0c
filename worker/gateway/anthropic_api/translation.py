"""From a Messages request to what is asked of an agent. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType

from providers import ClientTool, ImagePart, Message, Role, TextPart, Thinking, ToolCall, ToolChoice, ToolOutcome
from providers.messages import Part
from queue_backends.messages import JsonObject
from worker.gateway.anthropic_api.request import (
    Base64Source,
    CountRequest,
    ImageBlock,
    MessageParam,
    MessagesRequest,
    TextBlock,
    ThinkingParam,
    ToolParam,
    ToolResultBlock,
    ToolUseBlock,
)
from worker.gateway.ingress.ask import Ask
from worker.gateway.ingress.images import image_of_data, image_of_url
from worker.gateway.problem import Problem

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_EFFORTS: Mapping[str, str] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


def refused(where: str, why: str) -> Problem:
    """What cannot be served."""
    return Problem(400, f"{where}: {why}", code="invalid_request")


def ask_of(request: MessagesRequest) -> Ask:
    """Raises `Problem` 400 for what cannot be served."""
    _check(request)
    choice = request.tool_choice
    return Ask(
        agent=request.model,
        messages=conversation_of(request.messages),
        instructions=instructions_of(request),
        client_tools=tools_of(request.tools),
        tool_choice=_choice(request),
        only_tool=choice.name if choice is not None and choice.type == "tool" else "",
        parallel_calls=not (choice is not None and choice.disable_parallel_tool_use),
        output_schema=_schema(request),
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=tuple(request.stop_sequences or ()),
        thinking=_thinking(request.thinking, request),
        meta=_meta(request),
    )


def instructions_of(request: CountRequest) -> str:
    """The system prompt, and what system messages say."""
    said = [_joined(request.system)]
    said += [_plain_text(message) for message in request.messages if message.role == "system"]
    return "\n\n".join(filter(None, said))


def tools_of(tools: Sequence[ToolParam] | None) -> tuple[ClientTool, ...]:
    """The client's tools. Raises `Problem` 400 for those of the vendor's own servers."""
    return tuple(_tool(tool, f"tools.{index}") for index, tool in enumerate(tools or ()))


def _tool(tool: ToolParam, where: str) -> ClientTool:
    if tool.type not in (None, "custom"):
        raise refused(where, f"type {tool.type[:50]!r} is not supported: an agent's own tools run in the fleet")
    if not _TOOL_NAME.fullmatch(tool.name):
        raise refused(f"{where}.name", f"{tool.name[:130]!r}: use 1 to 128 letters, digits, '_' and '-'")
    return ClientTool(
        name=tool.name, description=tool.description or "", input_schema=tool.input_schema or {"type": "object"}
    )


def conversation_of(messages: Sequence[MessageParam]) -> tuple[Message, ...]:
    """The messages. Raises `Problem` 400 for a conversation that the vendor would not take either."""
    built: list[Message] = []
    open_calls: dict[str, str] = {}
    for index, message in enumerate(messages):
        if message.role == "system":
            continue
        where = f"messages.{index}"
        parts = tuple(_parts(message, open_calls, where))
        if message.role == "user":
            if open_calls:
                raise _unanswered(open_calls, where)
        else:
            open_calls = {part.id: part.name for part in parts if isinstance(part, ToolCall)}
        if parts:
            built.append(Message(role=Role(message.role), parts=parts))
    if open_calls:
        raise _unanswered(open_calls, "messages")
    if not built or built[-1].role is not Role.USER:
        raise refused(
            "messages", "the conversation must end with a user message: an answer cannot be begun for an agent"
        )
    return tuple(built)


def _parts(message: MessageParam, open_calls: dict[str, str], where: str) -> Iterator[Part]:
    if isinstance(message.content, str):
        if message.content:
            yield TextPart(text=message.content)
        return
    for index, block in enumerate(message.content):
        at = f"{where}.content.{index}"
        match block:
            case TextBlock(text=text):
                if text:
                    yield TextPart(text=text)
            case ImageBlock():
                yield _image(block, at)
            case ToolUseBlock(id=identifier, name=name):
                arguments = msgspec.json.encode(block.input).decode()
                yield ToolCall(id=identifier, name=name, arguments=arguments)
            case ToolResultBlock():
                yield _outcome(block, open_calls, at)


def _outcome(block: ToolResultBlock, open_calls: dict[str, str], where: str) -> ToolOutcome:
    name = open_calls.pop(block.tool_use_id, None)
    if name is None:
        raise refused(
            where,
            f"unexpected `tool_use_id` {block.tool_use_id[:70]!r} found in `tool_result` blocks: each must have a "
            "corresponding `tool_use` block in the previous message",
        )
    content = block.content
    images: tuple[ImagePart, ...] = ()
    if isinstance(content, list):
        images = tuple(_image(part, where) for part in content if isinstance(part, ImageBlock))
        content = _joined([part for part in content if isinstance(part, TextBlock)])
    return ToolOutcome(
        call_id=block.tool_use_id, name=name, content=content or "", is_error=bool(block.is_error), images=images
    )


def _image(block: ImageBlock, where: str) -> ImagePart:
    source = block.source
    if isinstance(source, Base64Source):
        return image_of_data(source.media_type, source.data, where)
    return image_of_url(source.url, where)


def _unanswered(open_calls: Mapping[str, str], where: str) -> Problem:
    return refused(
        where,
        f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(open_calls)[:300]}",
    )


def _joined(content: str | Sequence[TextBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(block.text for block in content)


def _plain_text(message: MessageParam) -> str:
    if isinstance(message.content, str):
        return message.content
    return _joined([block for block in message.content if isinstance(block, TextBlock)])


def _choice(request: CountRequest) -> ToolChoice | None:
    choice = request.tool_choice
    if choice is None or choice.type == "auto":
        return None
    names = {tool.name for tool in request.tools or ()}
    if choice.type == "none":
        return ToolChoice.NONE
    if not names:
        raise refused("tool_choice", "it may only be specified while providing `tools`")
    if choice.type == "tool" and choice.name not in names:
        raise refused("tool_choice.name", f"there is no tool {choice.name[:130]!r} among the tools")
    return ToolChoice.REQUIRED


def _schema(request: CountRequest) -> JsonObject | None:
    config = request.output_config
    return None if config is None or config.format is None else config.format.schema


def _thinking(given: ThinkingParam | None, request: CountRequest) -> Thinking | UnsetType | None:
    named = request.output_config.effort if request.output_config else None
    if named is not None and named not in _EFFORTS:
        raise refused("output_config.effort", f"{named[:50]!r} is unknown: use {', '.join(_EFFORTS)}")
    effort = _EFFORTS.get(named or "", "")
    if given is None:
        return Thinking(effort=effort) if effort else UNSET
    if given.type == "disabled":
        return None
    if given.type == "adaptive":
        return Thinking(effort=effort or "medium")
    if given.budget_tokens is None or given.budget_tokens < 1024:
        raise refused("thinking.budget_tokens", f"{given.budget_tokens} is not allowed: give at least 1024")
    return Thinking(budget_tokens=given.budget_tokens, effort=effort)


def _meta(request: MessagesRequest) -> dict[str, str]:
    user = request.metadata.user_id if request.metadata else None
    return {"api": "messages", **({"user": user} if user else {})}


def _check(request: MessagesRequest) -> None:
    if request.max_tokens < 1:
        raise refused("max_tokens", f"{request.max_tokens} is not allowed: give at least 1")
    if request.temperature is not None and not 0 <= request.temperature <= 1:
        raise refused("temperature", f"{request.temperature:g} is not allowed: give 0 to 1")
    if request.top_p is not None and not 0 <= request.top_p <= 1:
        raise refused("top_p", f"{request.top_p:g} is not allowed: give 0 to 1")
    if request.thread:
        # The vendor's client that is told so goes on by itself, and sends the whole conversation each time.
        details = {"error_code": "thread_unsupported_request"}
        raise Problem(
            400,
            "thread: conversations are not held here for a client: send the whole one, without 'thread'",
            code="thread_unsupported_request",
            extra={"details": details},
        )
    if request.container:
        raise refused("container", "it is not supported here: leave it out")
    if request.mcp_servers:
        raise refused("mcp_servers", "they are not supported here: an agent's own tools run in the fleet")
