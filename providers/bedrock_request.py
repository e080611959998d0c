"""From the neutral conversation to the body of a Bedrock Converse request. Pure.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html and the pages on tool
use, prompt caching and reasoning in the user guide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from providers.bedrock_messages import converse_messages
from providers.bedrock_models import Maker, caches_prompts, caches_tools, maker
from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    Message,
    Thinking,
    ToolChoice,
    ToolSpec,
    TurnRequest,
)
from providers.thinking_effort import effort_of
from queue_backends.messages import JsonObject

_MIN_THINKING_TOKENS = 1024
_MIN_CACHED_CHARS = 4096
"""Cache entries below 1,024 tokens are never made: about 4 characters each."""

_CACHE_POINT = {"cachePoint": {"type": "default"}}


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes. Models behind this API differ, and refuse what they cannot do."""

    streaming_tools: bool = True
    """Tools in a streamed request; without, the turn is asked for in one piece."""
    tools: bool = True
    tool_choice: bool = True
    """That a call is demanded."""
    cache: bool = True
    """Cache points."""
    system: bool = True
    """A system prompt apart from the conversation."""


def request_body(request: TurnRequest, dialect: Dialect) -> bytes:
    """The body of `POST /model/{modelId}/converse-stream`, and of `converse`, for one turn."""
    config = request.config
    body = _body(config, request.messages, dialect)
    body["inferenceConfig"] = _inference(config, _max_tokens(config))
    tools = _tools(request, dialect)
    if tools:
        body["toolConfig"] = tools
    fields = _model_fields(config)
    if fields:
        body["additionalModelRequestFields"] = fields
    if dialect.cache and tools and config.options.get("cache", True) and caches_prompts(config.model):
        _add_cache_points(body, with_tools=caches_tools(config.model))
    add_extra(body, config.options.get("extra_body", {}))
    if guardrail := config.options.get("guardrail"):
        body["guardrailConfig"] = guardrail
    return msgspec.json.encode(body)


def completion_body(config: AgentConfig, messages: Sequence[Message], max_tokens: int, dialect: Dialect) -> bytes:
    """The body of a plain request without tools and thinking."""
    body = _body(config, messages, dialect)
    inference: JsonObject = {"maxTokens": max_tokens} if max_tokens > 0 else {}
    if config.temperature is not None:
        inference["temperature"] = config.temperature
    if inference:
        body["inferenceConfig"] = inference
    return msgspec.json.encode(body)


def count_body(config: AgentConfig, messages: Sequence[Message]) -> bytes:
    """The body of `POST /model/{modelId}/count-tokens`."""
    body = _body(config, messages, Dialect())
    if tools := _tools_of_history(body["messages"]):
        body["toolConfig"] = {"tools": tools}
    return msgspec.json.encode({"input": {"converse": body}})


def _body(config: AgentConfig, messages: Iterable[Message], dialect: Dialect) -> JsonObject:
    body: JsonObject = {"messages": converse_messages(messages)}
    if not config.system_prompt.strip():
        return body
    if dialect.system:
        body["system"] = [{"text": config.system_prompt}]
    else:
        _put_first(body["messages"], config.system_prompt)
    return body


def _put_first(messages: list[JsonObject], text: str) -> None:
    """For models without a system prompt: the conversation begins with it."""
    if messages and messages[0]["role"] == "user":
        messages[0]["content"].insert(0, {"text": text})
    else:
        messages.insert(0, {"role": "user", "content": [{"text": text}]})


def _inference(config: AgentConfig, max_tokens: int) -> JsonObject:
    inference: JsonObject = {"maxTokens": max_tokens}
    thinks = _thinks(config) and maker(config.model) is Maker.ANTHROPIC
    # With thinking, Anthropic's models take no temperature.
    if config.temperature is not None and not thinks:
        inference["temperature"] = config.temperature
    if config.top_p is not None and (not thinks or config.top_p >= 0.95):
        inference["topP"] = config.top_p
    if config.stop:
        inference["stopSequences"] = list(config.stop)
    return inference


def _tools(request: TurnRequest, dialect: Dialect) -> JsonObject | None:
    config = request.config
    if not dialect.tools:
        return None
    history = _tools_of_history(converse_messages(request.messages))
    if not request.tools or config.tool_choice is ToolChoice.NONE:
        # A conversation with calls in it is refused without a description of tools.
        return {"tools": history} if history else None
    built: JsonObject = {"tools": [_tool(tool) for tool in request.tools]}
    forbidden = _thinks(config) and maker(config.model) is Maker.ANTHROPIC  # the vendor takes no forced call then
    if config.tool_choice is ToolChoice.REQUIRED and dialect.tool_choice and not forbidden:
        built["toolChoice"] = {"any": {}}
    return built


def _tool(tool: ToolSpec) -> JsonObject:
    spec: JsonObject = {"name": tool.name, "inputSchema": {"json": {"type": "object"} | tool.input_schema}}
    if tool.description.strip():
        spec["description"] = tool.description
    return {"toolSpec": spec}


def _tools_of_history(messages: Iterable[Mapping[str, Any]]) -> list[JsonObject]:
    names = [block["toolUse"]["name"] for message in messages for block in message["content"] if "toolUse" in block]
    schema = {"json": {"type": "object"}}
    return [{"toolSpec": {"name": name, "inputSchema": schema}} for name in dict.fromkeys(names)]


def _thinks(config: AgentConfig) -> bool:
    return config.thinking is not None and bool(config.thinking.budget_tokens or config.thinking.effort)


def _max_tokens(config: AgentConfig) -> int:
    # Thinking counts as output: `max_tokens` stays what the answer itself may use.
    budget = config.thinking.budget_tokens if config.thinking else None
    if not budget or maker(config.model) is not Maker.ANTHROPIC:
        return config.max_tokens
    return config.max_tokens + max(budget, _MIN_THINKING_TOKENS)


def _model_fields(config: AgentConfig) -> JsonObject:
    """How much to think, which every maker calls something else. Other makers' models have no such setting."""
    if config.thinking is None or not _thinks(config):
        return {}
    match maker(config.model):
        case Maker.ANTHROPIC:
            return _anthropic_thinking(config.thinking)
        case Maker.AMAZON:
            return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort_of(config.thinking)}}
        case Maker.OPENAI:
            return {"reasoning_effort": effort_of(config.thinking)}
    return {}


def _anthropic_thinking(thinking: Thinking) -> JsonObject:
    fields: JsonObject = {"thinking": {"type": "adaptive"}}
    if thinking.budget_tokens:
        budget = max(thinking.budget_tokens, _MIN_THINKING_TOKENS)
        fields["thinking"] = {"type": "enabled", "budget_tokens": budget}
    if thinking.effort:
        fields["output_config"] = {"effort": thinking.effort}
    return fields


def _add_cache_points(body: JsonObject, *, with_tools: bool) -> None:
    """Points after the fixed beginning (tools, then system) and after the conversation so far.

    Only with tools: their loop sends the same beginning again within seconds, which is what a cache entry is for.
    """
    fixed_chars = len(msgspec.json.encode([body["toolConfig"], body.get("system", [])]))
    all_chars = fixed_chars + len(msgspec.json.encode(body["messages"]))
    if fixed_chars >= _MIN_CACHED_CHARS:
        if "system" in body:
            body["system"].append(_CACHE_POINT)
        elif with_tools:
            body["toolConfig"]["tools"].append(_CACHE_POINT)
    if body["messages"] and all_chars >= _MIN_CACHED_CHARS:
        body["messages"][-1]["content"].append(_CACHE_POINT)
