"""From the neutral conversation to the body of an Ollama chat request. Pure.

Source: https://docs.ollama.com/api and the pages on tool calling, thinking and structured outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from providers.call_arguments import arguments_object
from providers.errors import InvalidRequest
from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnRequest,
)
from queue_backends.messages import JsonObject

PROVIDER = "ollama"

_EFFORTS = frozenset({"low", "medium", "high"})


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes. Ollama refuses a request that asks for more than its model can."""

    tools: bool = True
    thinking: bool = True
    """The field `think` at all."""
    efforts: bool = True
    """`think` as a word, which only some models take, instead of as yes or no."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """How the server shall run the model."""

    num_ctx: int | None = None
    """Context window, in tokens; None: as the server or the model's own file says."""
    keep_alive: str | int | float | None = None
    """How long the model stays loaded after the request: seconds, or a duration such as `10m`; -1: for ever."""


def request_body(request: TurnRequest, serving: Serving, dialect: Dialect) -> bytes:
    """The body of `POST /api/chat` for one streamed turn."""
    config = request.config
    tools = request.tools if dialect.tools and config.tool_choice is not ToolChoice.NONE else ()
    body = _body(config, request.messages, serving, config.max_tokens + _thinking_tokens(config.thinking))
    body["stream"] = True
    if tools:
        body["tools"] = [_tool(tool) for tool in tools]
    if config.output_schema is not None:
        _add_schema(body, config.output_schema, with_tools=bool(tools))
    think = _think(config.thinking, dialect)
    if think is not None:
        body["think"] = think
    add_extra(body, config.options.get("extra_body", {}))
    return msgspec.json.encode(body)


def completion_body(config: AgentConfig, messages: Sequence[Message], max_tokens: int, serving: Serving) -> bytes:
    """The body of a plain request without tools, answered in one piece."""
    body = _body(config, messages, serving, max_tokens if max_tokens > 0 else None)
    body["stream"] = False
    return msgspec.json.encode(body)


def embedding_body(config: AgentConfig, model: str, texts: Sequence[str], serving: Serving) -> bytes:
    """The body of `POST /api/embed`. A text that is too long is refused, not cut."""
    body: JsonObject = {"model": model, "input": list(texts), "truncate": False}
    if dimensions := config.options.get("dimensions"):
        body["dimensions"] = dimensions
    if serving.keep_alive is not None:
        body["keep_alive"] = serving.keep_alive
    return msgspec.json.encode(body)


def _body(config: AgentConfig, messages: Iterable[Message], serving: Serving, max_tokens: int | None) -> JsonObject:
    body: JsonObject = {"model": config.model, "messages": _messages(config.system_prompt, messages)}
    # By default the server drops the oldest messages in silence: those that do not fit, and, while it writes, those
    # that stand where the answer grows.
    body["truncate"] = body["shift"] = bool(config.options.get("truncate", False))
    options: JsonObject = {}
    if max_tokens is not None:
        options["num_predict"] = max_tokens
    if serving.num_ctx is not None:
        options["num_ctx"] = serving.num_ctx
    if config.temperature is not None:
        options["temperature"] = config.temperature
    if config.top_p is not None:
        options["top_p"] = config.top_p
    if config.stop:
        options["stop"] = list(config.stop)
    options.update(config.options.get("model_options", {}))
    if options:
        body["options"] = options
    if serving.keep_alive is not None:
        body["keep_alive"] = serving.keep_alive
    return body


def _add_schema(body: JsonObject, schema: Mapping[str, Any], *, with_tools: bool) -> None:
    if not with_tools:
        body["format"] = schema
        return
    # `format` holds every token of the answer to the schema, so the model could call no tool: then it is only told.
    said = (
        "When you give the final answer, instead of calling a tool, write only JSON that matches this JSON Schema: "
        + msgspec.json.encode(schema).decode()
    )
    messages: list[JsonObject] = body["messages"]
    if messages and messages[0]["role"] == "system":
        messages[0] = {**messages[0], "content": f"{messages[0]['content']}\n\n{said}"}
    else:
        messages.insert(0, {"role": "system", "content": said})


def _think(thinking: Thinking | None, dialect: Dialect) -> bool | str | None:
    if thinking is None or not dialect.thinking:
        return None
    if thinking.effort:
        return thinking.effort if dialect.efforts and thinking.effort in _EFFORTS else thinking.effort != "none"
    return None if thinking.budget_tokens is None else thinking.budget_tokens > 0


def _thinking_tokens(thinking: Thinking | None) -> int:
    # Thinking counts as output: `max_tokens` stays what the answer itself may use.
    return max(thinking.budget_tokens or 0, 0) if thinking else 0


def _tool(tool: ToolSpec) -> JsonObject:
    parameters = {"type": "object"} | tool.input_schema
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def _messages(system_prompt: str, conversation: Iterable[Message]) -> list[JsonObject]:
    """The conversation in the vendor's form: one of our messages may become several."""
    built: list[JsonObject] = []
    if system_prompt.strip():
        built.append({"role": "system", "content": system_prompt})
    for message in conversation:
        if message.role is Role.ASSISTANT:
            built.extend(_assistant(message))
        else:
            built.extend(_user(message))
    return built


def _assistant(message: Message) -> Iterable[JsonObject]:
    built: JsonObject = {"role": "assistant", "content": message.text}
    # The templates of models that need their reasoning in a tool loop take it from here; others leave it out.
    thinking = "".join(
        part.text for part in message.parts if isinstance(part, ThinkingPart) and part.provider == PROVIDER
    )
    if thinking:
        built["thinking"] = thinking
    if message.tool_calls:
        built["tool_calls"] = [_call(index, call) for index, call in enumerate(message.tool_calls)]
    if len(built) > 2 or message.text:
        yield built


def _call(index: int, call: ToolCall) -> JsonObject:
    function = {"index": index, "name": call.name, "arguments": arguments_object(call.arguments)}
    return {"id": call.id, "function": function}


def _user(message: Message) -> Iterable[JsonObject]:
    images: list[str] = []
    texts: list[str] = []
    for part in message.parts:
        match part:
            case ToolOutcome():
                # Newer servers tell outcomes apart by id, older ones by name; each ignores the other field.
                yield {
                    "role": "tool",
                    "content": part.content,
                    "tool_name": part.name,
                    "tool_call_id": part.call_id,
                }
                images.extend(map(_image, part.images))  # models see pictures only in a user's message
            case TextPart():
                texts.append(part.text)
            case ImagePart():
                images.append(_image(part))
            case _:
                continue
    said: JsonObject = {"role": "user", "content": "".join(texts)}
    if images:
        said["images"] = images
    if images or said["content"]:
        yield said


def _image(image: ImagePart) -> str:
    if image.data:
        return image.data
    head, _, data = image.url.partition(";base64,")
    if head.startswith("data:") and data:
        return data
    raise InvalidRequest(
        f"{PROVIDER} takes pictures only as data, not by address: send this one as base64 `data` with its media_type",
        provider=PROVIDER,
    )
