"""From the neutral conversation to the body of a Gemini `generateContent` request. Pure.

Source: https://ai.google.dev/api/generate-content and the pages on function calling, thinking and thought signatures;
Vertex AI takes the same body (https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference).

A thought signature belongs to the part that it came with, which may be a text or a call. Ours have no place for it, so
it travels as a `ThinkingPart` of its own: with `signature` before the part that it belongs to, or with `redacted` where
it came with an empty text.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence

import msgspec

from providers import gemini_models as models
from providers.call_arguments import arguments_object
from providers.extra_body import add_extra
from providers.messages import (
    AgentConfig,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolCall,
    ToolChoice,
    ToolOutcome,
    ToolSpec,
    TurnRequest,
)
from queue_backends.messages import JsonObject

LOCAL_ID = "local-"
"""How ids of calls begin that the vendor gave none: they mean nothing to it, and are not sent."""

NO_SIGNATURE = "skip_thought_signature_validator"
"""Google's own word for calls that its model did not make, such as another vendor's in a conversation taken over."""


def request_body(request: TurnRequest, provider: str) -> bytes:
    """The body of `:streamGenerateContent` for one turn. `provider` is whose reasoning goes back."""
    config = request.config
    body = conversation_body(config, request.messages, provider)
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        if config.tool_choice is not ToolChoice.AUTO:
            body["toolConfig"] = {"functionCallingConfig": {"mode": _MODE[config.tool_choice]}}
    generation = _generation_config(config, with_tools=bool(request.tools))
    return _encoded(config, body, generation)


def completion_body(config: AgentConfig, messages: Sequence[Message], max_tokens: int, provider: str) -> bytes:
    """The body of a plain `:generateContent`, without tools and thoughts; no limit if `max_tokens` is not positive."""
    generation: JsonObject = {"maxOutputTokens": max_tokens} if max_tokens > 0 else {}
    if config.temperature is not None:
        generation["temperature"] = config.temperature
    return _encoded(config, conversation_body(config, messages, provider), generation)


def conversation_body(config: AgentConfig, messages: Sequence[Message], provider: str) -> JsonObject:
    """The system prompt and the conversation, which are also what is counted."""
    body: JsonObject = {"contents": list(_contents(config.model, messages, provider))}
    if config.system_prompt.strip():
        body["systemInstruction"] = {"parts": [{"text": config.system_prompt}]}
    return body


_MODE = {ToolChoice.AUTO: "AUTO", ToolChoice.REQUIRED: "ANY", ToolChoice.NONE: "NONE"}


def _encoded(config: AgentConfig, body: JsonObject, generation: JsonObject) -> bytes:
    if generation:
        body["generationConfig"] = generation
    add_extra(body, config.options.get("extra_body", {}))
    return msgspec.json.encode(body)


def _generation_config(config: AgentConfig, *, with_tools: bool) -> JsonObject:
    built: JsonObject = {"maxOutputTokens": config.max_tokens}
    if config.temperature is not None:
        built["temperature"] = config.temperature
    if config.top_p is not None:
        built["topP"] = config.top_p
    if config.stop:
        built["stopSequences"] = list(config.stop)
    if config.thinking is not None and (thinking := models.thinking_config(config.model, config.thinking)):
        built["thinkingConfig"] = thinking
        # Thinking counts as output: `max_tokens` stays what the answer itself may use.
        built["maxOutputTokens"] += max(thinking.get("thinkingBudget", 0), 0)
    if config.output_schema is not None and (not with_tools or models.takes_schema_with_tools(config.model)):
        built["responseMimeType"] = "application/json"
        built["responseJsonSchema"] = config.output_schema
    return built


def _declaration(tool: ToolSpec) -> JsonObject:
    declared: JsonObject = {"name": tool.name, "description": tool.description}
    if set(tool.input_schema) - {"type"}:  # an object of nothing in particular is refused by older models
        declared["parametersJsonSchema"] = {"type": "object"} | tool.input_schema
    return declared


def _contents(model: str, messages: Sequence[Message], provider: str) -> Iterator[JsonObject]:
    for message in messages:
        if message.role is Role.ASSISTANT:
            role, parts = "model", list(_answer(model, message, provider))
        else:
            role, parts = "user", list(_user(model, message))
        if parts:  # a content without parts is refused
            yield {"role": role, "parts": parts}


def _answer(model: str, message: Message, provider: str) -> Iterator[JsonObject]:
    signature = ""
    must_sign = models.checks_signatures(model)  # of several calls in one turn, only the first has a signature
    for part in message.parts:
        if isinstance(part, ThinkingPart):
            if part.provider != provider:
                continue
            if part.text or part.redacted:
                yield _signed({"text": part.text, "thought": True} if part.text else {"text": ""}, _own_signature(part))
            else:
                signature = part.signature
            continue
        built = _said(part)
        if built is None:
            continue
        if isinstance(part, ToolCall):
            signature = signature or (NO_SIGNATURE if must_sign else "")
            must_sign = False
        yield _signed(built, signature)
        signature = ""


def _own_signature(part: ThinkingPart) -> str:
    return part.signature or part.redacted


def _signed(built: JsonObject, signature: str) -> JsonObject:
    if signature:
        built["thoughtSignature"] = signature
    return built


def _said(part: Part) -> JsonObject | None:
    match part:
        case TextPart():
            return {"text": part.text} if part.text else None
        case ToolCall():
            return {"functionCall": _with_id(part.id, {"name": part.name, "args": arguments_object(part.arguments)})}
        case ImagePart():
            return image(part)
    return None


def _user(model: str, message: Message) -> Iterator[JsonObject]:
    # What answers a call must come first, as many as there were calls.
    outcomes = [part for part in message.parts if isinstance(part, ToolOutcome)]
    inside = models.takes_media_in_outcomes(model)
    for outcome in outcomes:
        yield _function_response(outcome, with_images=inside)
    for outcome in outcomes if not inside else ():
        yield from map(image, outcome.images)
    for part in message.parts:
        if not isinstance(part, ToolOutcome) and (built := _said(part)) is not None:
            yield built


def _function_response(outcome: ToolOutcome, *, with_images: bool) -> JsonObject:
    content = outcome.content
    if not content and outcome.structured is not None:
        content = msgspec.json.encode(outcome.structured).decode()
    response: JsonObject = {"name": outcome.name, "response": {"error" if outcome.is_error else "output": content}}
    if with_images and outcome.images:
        response["parts"] = [image(picture) for picture in outcome.images]
    return {"functionResponse": _with_id(outcome.call_id, response)}


def _with_id(call_id: str, built: JsonObject) -> JsonObject:
    return built if not call_id or call_id.startswith(LOCAL_ID) else {"id": call_id, **built}


def image(part: ImagePart) -> JsonObject:
    """A picture as data, or by an address that the vendor fetches: `gs://`, one of its Files API, or `https://`."""
    if part.url.startswith("data:"):
        kind, _, data = part.url.removeprefix("data:").partition(";base64,")
        return {"inlineData": {"mimeType": kind, "data": data}}
    if part.url:
        kind = part.media_type or mimetypes.guess_type(part.url.partition("?")[0])[0] or "image/jpeg"
        return {"fileData": {"mimeType": kind, "fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type or "image/png", "data": part.data}}
