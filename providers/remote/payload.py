"""What a provider is asked and what it answers: flat maps of texts, inside `params_json` and `result_json`. Pure.

Documented parameters: `prompt`, `messages`, `tools`, `tool_choice`, `max_tokens`, `temperature`; outputs: `content`,
`model`, `finish_reason` and `tool_calls`. Token counts are extra outputs (`input_tokens`, …), decimal. To another Shoal
process (`FULL`) goes what the documented ones have no place for; everyone else neither sends nor gets that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from providers.errors import InvalidRequest
from providers.messages import (
    AgentConfig,
    Message,
    Part,
    Role,
    StopReason,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolChoice,
    ToolSpec,
    TurnEnd,
    TurnRequest,
)
from providers.remote.chat_form import calls_json, messages_json, read_calls, read_messages, read_tools, tools_json
from queue_backends import TokenUsage

FULL = "shoal"
"""The parameter by which one Shoal process tells another that it understands the additions."""
FEATURE = "shoal"
"""The key in `InfoResponse.metadata` by which a plugin says the same."""

Flat = dict[str, str]

_USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_MOST_DIGITS = 15
_REASONS = {
    StopReason.END_TURN: "stop",
    StopReason.STOP_SEQUENCE: "stop",
    StopReason.REFUSAL: "stop",
    StopReason.PAUSE: "stop",
    StopReason.TOOL_USE: "tool_calls",
    StopReason.MAX_TOKENS: "length",
}
_FROM_REASON = {"tool_calls": StopReason.TOOL_USE, "length": StopReason.MAX_TOKENS}


class Ask(Struct, frozen=True, kw_only=True):
    """A call as the provider's side reads it."""

    config: AgentConfig
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    full: bool = False


# What is asked


def params_of(request: TurnRequest, *, full: bool) -> Flat:
    """The parameters of one turn."""
    config = request.config
    params = {"messages": messages_json(config.system_prompt, request.messages, full=full)}
    if request.tools:
        params["tools"] = tools_json(request.tools)
        params["tool_choice"] = config.tool_choice.value
    return params | _settings(config, full)


def prompt_params(config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int, *, full: bool) -> Flat:
    """The parameters of a single question without tools."""
    config = replace(config, max_tokens=max_tokens) if max_tokens > 0 else config
    if system_prompt.strip():
        asked = {"messages": messages_json(system_prompt, [Message.user(prompt)], full=full)}
    else:
        asked = {"prompt": prompt}
    return asked | _settings(config, full)


def _settings(config: AgentConfig, full: bool) -> Flat:
    params = {"max_tokens": str(config.max_tokens)}
    if config.temperature is not None:
        params["temperature"] = f"{config.temperature:g}"
    if config.model:
        params["model"] = config.model
    if full:
        params[FULL] = "1"
        for name in ("top_p", "stop", "thinking", "output_schema", "options"):
            if value := getattr(config, name):
                params[name] = msgspec.json.encode(value).decode()
    return params


def read_params(data: bytes) -> Flat:
    """The parameters in a `params_json`. Raises `InvalidRequest`, in the words of the Go SDK."""
    try:
        params = msgspec.json.decode(data or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"invalid params JSON: {error}") from error
    return {name: flat(value) for name, value in params.items() if value is not None}


def flat(value: Any) -> str:
    """A value as the text that stands for it: a text itself, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def read_ask(params: Mapping[str, str], defaults: AgentConfig) -> Ask:
    """The call that parameters ask for; `messages` counts more than `prompt`. Raises `InvalidRequest`."""
    system_prompt = defaults.system_prompt
    messages: tuple[Message, ...] = ()
    if params.get("messages", "").strip():
        said, messages = read_messages(params["messages"])
        system_prompt = said or system_prompt
    if not messages:
        if not params.get("prompt"):
            raise InvalidRequest("invalid params: give a prompt, or messages")
        messages = (Message.user(params["prompt"]),)
    full = FULL in params
    config = replace(
        defaults,
        system_prompt=system_prompt,
        model=params.get("model") or defaults.model,
        max_tokens=_number(params, "max_tokens", int, defaults.max_tokens),
        temperature=_number(params, "temperature", float, defaults.temperature),
        tool_choice=_tool_choice(params),
    )
    tools = read_tools(params["tools"]) if params.get("tools", "").strip() else ()
    return Ask(config=_with_additions(config, params) if full else config, messages=messages, tools=tools, full=full)


def _with_additions(config: AgentConfig, params: Mapping[str, str]) -> AgentConfig:
    kinds: dict[str, Any] = {
        "top_p": float,
        "stop": tuple[str, ...],
        "thinking": Thinking,
        "output_schema": dict[str, Any],
        "options": dict[str, Any],
    }
    try:
        found = {name: msgspec.json.decode(params[name], type=kind) for name, kind in kinds.items() if name in params}
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid params: {error}") from error
    if "options" in found:
        found["options"] = {**config.options, **found["options"]}
    return replace(config, **found) if found else config


def _number(params: Mapping[str, str], name: str, kind: Any, default: Any) -> Any:
    text = params.get(name, "").strip()
    if not text:
        return default
    try:
        return kind(float(text))
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"invalid params: {name} is {text!r}: it must be a number") from error


def _tool_choice(params: Mapping[str, str]) -> ToolChoice:
    text = params.get("tool_choice", "").strip() or "auto"
    try:
        return ToolChoice(text)
    except ValueError as error:
        raise InvalidRequest(f"invalid params: tool_choice is {text!r}: use auto, required or none") from error


# What is answered


def output_of(end: TurnEnd, *, full: bool) -> Flat:
    """The outputs of a finished turn."""
    calls = end.message.tool_calls
    output = {"content": end.message.text, "model": end.model}
    output["finish_reason"] = "tool_calls" if calls else _REASONS[end.stop_reason]
    if calls:
        output["tool_calls"] = calls_json(calls)
    for name in _USAGE:
        if (count := getattr(end.usage, name)) is not None:
            output[name] = str(count)
    if full:
        output["stop_reason"] = end.stop_reason.value
        output["parts"] = msgspec.json.encode(end.message.parts).decode()
        if end.response_id:
            output["response_id"] = end.response_id
    return output


def read_output(data: bytes) -> Flat:
    """The outputs in a `result_json`. Raises `ValueError` if it is no JSON object."""
    output = msgspec.json.decode(data or b"{}", type=dict[str, Any])
    return {name: flat(value) for name, value in output.items() if value is not None}


def end_of(output: Mapping[str, str]) -> TurnEnd:
    """The finished turn that outputs tell of. Raises `InvalidRequest` if its tool calls are none."""
    parts = _parts(output)
    message = Message(role=Role.ASSISTANT, parts=parts)
    reason = _FROM_REASON.get(output.get("finish_reason", ""), StopReason.END_TURN)
    if output.get("stop_reason"):
        reason = StopReason(output["stop_reason"])
    elif message.tool_calls:
        reason = StopReason.TOOL_USE
    return TurnEnd(
        message=message,
        stop_reason=reason,
        usage=usage_of(output),
        model=output.get("model", ""),
        response_id=output.get("response_id", ""),
    )


def _parts(output: Mapping[str, str]) -> tuple[Part, ...]:
    if output.get("parts"):
        return msgspec.json.decode(output["parts"], type=tuple[Part, ...])
    text = output.get("content", "")
    calls = read_calls(output["tool_calls"]) if output.get("tool_calls", "").strip() else ()
    return (*((TextPart(text=text),) if text else ()), *calls)


def thinking_of(end: TurnEnd) -> str:
    """The reasoning of a finished turn."""
    return "".join(part.text for part in end.message.parts if isinstance(part, ThinkingPart))


def usage_of(output: Mapping[str, str]) -> TokenUsage:
    """The usage that outputs tell of; what is missing or no number is unknown."""
    return TokenUsage(**{name: count for name in _USAGE if (count := whole_number(output.get(name, ""))) is not None})


def whole_number(text: str) -> int | None:
    """A decimal number, if the text is one that a peer can mean."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS else None
