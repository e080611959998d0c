"""From the neutral conversation to the body of an OpenAI Chat Completions request. Pure.

Source: https://platform.openai.com/docs/api-reference/chat/create, and what compatible servers are known to refuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from providers.errors import InvalidRequest, ProviderError
from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolOutcome,
    ToolSpec,
    TurnRequest,
)
from providers.openai_schema import SchemaSupport, relaxed_schema, sent_schema
from providers.structured import with_schema_in_prompt
from providers.thinking_effort import effort_of
from queue_backends.messages import JsonObject


class Dialect(SchemaSupport, frozen=True, kw_only=True):
    """Which parts of the protocol a server takes. `OPENAI` is the vendor's own; others are asked, then believed."""

    stream_usage: bool = True
    """`stream_options.include_usage`."""
    max_completion_tokens: bool = True
    max_tokens: bool = False
    """The older name of the limit. Servers that do not know a name mostly ignore it, so others get both."""
    tools: bool = True
    sampling: bool = True
    """`temperature` and `top_p`, which reasoning models refuse."""


OPENAI = Dialect()
COMPATIBLE = Dialect(max_tokens=True)


def relaxed(dialect: Dialect, error: ProviderError) -> Dialect | None:
    """The dialect to try after the server refused a request; None if the refusal is about something else."""
    if not isinstance(error, InvalidRequest) and error.status != 500:
        return None
    said = str(error).lower()
    if dialect.tools and "does not support tools" in said:
        return msgspec.structs.replace(dialect, tools=False)
    if dialect.stream_usage and ("stream_options" in said or "include_usage" in said):
        return msgspec.structs.replace(dialect, stream_usage=False)
    if (easier := relaxed_schema(dialect, said)) is not None:
        return easier
    if dialect.sampling and refuses_sampling(said):
        return msgspec.structs.replace(dialect, sampling=False)
    if "max_completion_tokens" not in said and "max_tokens" not in said:
        return None
    if not _about_parameter(said):
        return None
    if dialect.max_tokens and dialect.max_completion_tokens:
        only_old = "max_tokens" not in said.replace("max_completion_tokens", "")
        return msgspec.structs.replace(dialect, max_tokens=only_old, max_completion_tokens=not only_old)
    if dialect.max_completion_tokens and "max_completion_tokens" in said:
        return msgspec.structs.replace(dialect, max_tokens=True, max_completion_tokens=False)
    return None


_REFUSALS = (
    "unsupported",
    "not supported",
    "unknown",
    "unrecognized",
    "unexpected",
    "not permitted",
    "extra",
    "invalid param",
    "same time",
)


def refuses_sampling(said: str) -> bool:
    """Whether an error's text, in lower case, says that a model takes no `temperature` or `top_p`."""
    named = "'temperature'" in said or "'top_p'" in said
    return named and any(word in said for word in ("unsupported", "not supported", "does not support"))


def _about_parameter(said: str) -> bool:
    # "max_tokens is too large: 99999" names it too, and must not be taken for an unknown parameter.
    return any(word in said for word in _REFUSALS)


def request_body(request: TurnRequest, dialect: Dialect, provider: str) -> bytes:
    """The body of `POST /chat/completions` for one streamed turn. Of reasoning, only `provider`'s own goes back."""
    config = request.config
    schema = sent_schema(config.output_schema, dialect)
    if schema is None:
        request = with_schema_in_prompt(request)
    body: JsonObject = {"model": config.model, "messages": messages(config.system_prompt, request.messages, provider)}
    body["stream"] = True
    if dialect.stream_usage:
        body["stream_options"] = {"include_usage": True}
    _add_limit(body, config.max_tokens, dialect)
    if request.tools and dialect.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = config.tool_choice.value
    _add_sampling(body, config, dialect)
    _add_settings(body, config)
    if schema is not None:
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    add_extra(body, config.options.get("extra_body", {}))
    return msgspec.json.encode(body)


def completion_body(config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int, dialect: Dialect) -> bytes:
    """The body of a plain request without tools, answered in one piece."""
    body: JsonObject = {"model": config.model, "messages": messages(system_prompt, [Message.user(prompt)], "")}
    if max_tokens > 0:
        _add_limit(body, max_tokens, dialect)
    _add_sampling(body, config, dialect)
    return msgspec.json.encode(body)


def _add_limit(body: JsonObject, max_tokens: int, dialect: Dialect) -> None:
    if dialect.max_completion_tokens:
        body["max_completion_tokens"] = max_tokens
    if dialect.max_tokens:
        body["max_tokens"] = max_tokens


def _add_sampling(body: JsonObject, config: AgentConfig, dialect: Dialect) -> None:
    if config.temperature is not None and dialect.sampling:
        body["temperature"] = config.temperature
    if config.top_p is not None and dialect.sampling:
        body["top_p"] = config.top_p


def _add_settings(body: JsonObject, config: AgentConfig) -> None:
    if config.stop:
        body["stop"] = list(config.stop)
    effort = effort_of(config.thinking)
    if effort:
        body["reasoning_effort"] = effort


def _tool(tool: ToolSpec) -> JsonObject:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def messages(system_prompt: str, conversation: Sequence[Message], provider: str) -> list[JsonObject]:
    """The conversation in the vendor's form: one of our messages may become several. Of reasoning, only `provider`'s
    own is left in."""
    built: list[JsonObject] = []
    if system_prompt.strip():
        built.append({"role": "system", "content": system_prompt})
    # Reasoning goes back only inside the current tool loop: servers that stream it need it there to go on, and refuse
    # or ignore it for earlier answers. The vendor itself never streams any.
    current = max((index for index, message in enumerate(conversation) if _is_prompt(message)), default=-1)
    for index, message in enumerate(conversation):
        if message.role is Role.ASSISTANT:
            built.extend(_assistant(message, provider if index > current else ""))
        else:
            built.extend(_user(message))
    return built


def _is_prompt(message: Message) -> bool:
    return message.role is Role.USER and not any(isinstance(part, ToolOutcome) for part in message.parts)


def _assistant(message: Message, thinker: str) -> Iterable[JsonObject]:
    calls = message.tool_calls
    text = message.text
    if not calls and not text:
        return
    built: JsonObject = {"role": "assistant", "content": text or None}
    if calls:
        built["tool_calls"] = [_call(call) for call in calls]
        reasoning = "".join(
            part.text for part in message.parts if isinstance(part, ThinkingPart) and part.provider == thinker
        )
        if thinker and reasoning:
            built["reasoning_content"] = reasoning
    yield built


def _call(call: ToolCall) -> JsonObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}


def _user(message: Message) -> Iterable[JsonObject]:
    images: list[ImagePart] = []
    for part in message.parts:
        if isinstance(part, ToolOutcome):
            yield {"role": "tool", "tool_call_id": part.call_id, "content": part.content}
            images.extend(part.images)  # a tool message has text only: pictures follow as the user's
    content = [_image(image) for image in images]
    for said in message.parts:
        if isinstance(said, TextPart) and said.text:
            content.append({"type": "text", "text": said.text})
        elif isinstance(said, ImagePart):
            content.append(_image(said))
    if not content:
        return
    plain = all(item["type"] == "text" for item in content)
    yield {"role": "user", "content": "".join(item["text"] for item in content) if plain else content}


def _image(image: ImagePart) -> JsonObject:
    return {"type": "image_url", "image_url": {"url": image_address(image)}}


def image_address(image: ImagePart) -> str:
    """The picture's address, or all of it as one."""
    return image.url or f"data:{image.media_type};base64,{image.data}"
