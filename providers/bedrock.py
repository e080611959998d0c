"""AWS Bedrock's Converse API: models of many makers, with AWS's own accounts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import msgspec

from providers import bedrock_embeddings as embeddings
from providers import bedrock_request as requests
from providers.aws_event_stream import AwsEventStreamDecoder
from providers.aws_sigv4 import path_part
from providers.bedrock_calls import BedrockCalls
from providers.bedrock_events import ConverseReader, exception_message
from providers.bedrock_models import foundation_model
from providers.bedrock_request import Dialect
from providers.calls import Limits, shown
from providers.capabilities import Capability
from providers.decoding import decoded
from providers.dialects import Dialects
from providers.embedding_model import embedding_model
from providers.errors import AuthenticationFailed, BadResponse, InvalidRequest, ProviderError, RateLimited, Unavailable
from providers.event_stream import EventStream
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, LimitsSeen, Message, TextDelta, TurnEvent, TurnRequest
from providers.model_facts import known_facts, merged
from providers.token_estimate import estimated_tokens
from providers.transport import Transport

_EMBEDDINGS_AT_ONCE = 8


class _Count(msgspec.Struct, rename="camel"):
    input_tokens: int


class _Details(msgspec.Struct, rename="camel"):
    input_modalities: list[str] | None = None


class _Described(msgspec.Struct, rename="camel"):
    model_details: _Details = msgspec.field(default_factory=_Details)


_count_decoder = msgspec.json.Decoder(_Count)
_described_decoder = msgspec.json.Decoder(_Described)

_T = TypeVar("_T")


class BedrockProvider(Configurable, ChatProvider):
    """Calls are signed with AWS keys from the usual places, or carry the API key in `AWS_BEARER_TOKEN_BEDROCK` (or in
    the variable that `config.api_key_env` names).

    `config.options` may have `region`, `cache` (false: no prompt caching), `guardrail` (object: the API's
    `guardrailConfig`), `embedding_model`, `dimensions`, `input_type`, `extra_body` and `extra_headers` (objects).
    """

    name = "bedrock"
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.IMAGE_URLS: "the API takes data and addresses in S3 only",
        Capability.NATIVE_SCHEMA: "only some makers' models have it",
        Capability.REASONING_TOKENS: "the API does not report them apart",
        Capability.EARLY_USAGE: "the API reports usage at the end",
        Capability.VENDOR_MODEL_INFO: "the API does not tell a model's window",
    }
    params = (
        ConfigParam(key="region", description="AWS region; else AWS_REGION, AWS_DEFAULT_REGION, the profile's"),
        ConfigParam(key="profile", description="Profile in AWS's files; else AWS_PROFILE"),
        ConfigParam(key="api_key", description="Bedrock API key; else AWS_BEARER_TOKEN_BEDROCK", secret=True),
        ConfigParam(key="access_key_id", description="AWS access key, with secret_access_key", secret=True),
        ConfigParam(key="secret_access_key", description="Secret of access_key_id", secret=True),
        ConfigParam(key="session_token", description="Token of temporary keys", secret=True),
        ConfigParam(key="base_url", description="Address of the runtime API; else AWS's own in the region"),
        ConfigParam(key="control_url", description="Address of the API that lists models; else AWS's own"),
        ConfigParam(key="model", description="Model of agents that name none"),
        ConfigParam(key="embedding_model", description=f"Model for embeddings; else {embeddings.DEFAULT_MODEL}"),
    )

    def __init__(self, transport: Transport | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._transport = transport or Transport()
        self._calls = BedrockCalls(self._transport, self.value, clock)
        self._dialects = Dialects(relaxed)

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed answer. Raises a `ProviderError` that carries the usage known by then."""
        config = self._with_model(request.config)
        request = msgspec.structs.replace(request, config=config)
        reader = ConverseReader(config.model)
        try:
            async with self._answer(request) as answer:
                if isinstance(answer, bytes):
                    for event in reader.whole(answer):
                        yield event
                else:
                    if answer.limits is not None:
                        yield LimitsSeen(answer.limits)
                    async for batch in answer:
                        for data in batch:
                            for event in reader.read(data):
                                yield event
                        if reader.complete:
                            await answer.settle()
                            break
            end = reader.end()
        except ProviderError as error:
            error.usage = error.usage or reader.usage
            raise
        yield end

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the model's own limit. Raises a `ProviderError`."""
        config = msgspec.structs.replace(self._with_model(config), system_prompt=system_prompt)

        async def ask(dialect: Dialect) -> bytes:
            body = requests.completion_body(config, [Message.user(prompt)], max_tokens, dialect)
            return await self._post(config, config.model, "converse", body)

        events = ConverseReader(config.model).whole(await self._adapted(config, ask))
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        if not text:
            raise BadResponse("provider returned empty response", provider=self.name)
        return text

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, else the setting `embedding_model`, else the
        model that `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        model = embedding_model(config, self.value, embeddings.DEFAULT_MODEL)
        gate = asyncio.Semaphore(_EMBEDDINGS_AT_ONCE)

        async def one(batch: Sequence[str]) -> list[list[float]]:
            async with gate:
                body = embeddings.embedding_body(model, batch, config.options)
                found = embeddings.vectors(model, await self._post(config, model, "invoke", body))
            if len(found) != len(batch):
                said = f"{self.name} embed: {len(found)} vectors came back for {len(batch)} texts"
                raise BadResponse(said, provider=self.name)
            return found

        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(one(batch)) for batch in embeddings.batches(model, texts)]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [vector for task in asked for vector in task.result()]

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by AWS where it can for this model and may be
        asked; else an estimate by characters. Raises a `ProviderError`.
        """
        config = self._with_model(config)
        model = foundation_model(config.model)
        try:
            answer = await self._post(config, model, "count-tokens", requests.count_body(config, messages))
        except (InvalidRequest, AuthenticationFailed):
            return estimated_tokens(config.system_prompt, messages)
        return decoded(_count_decoder, answer, self.name).input_tokens

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """Facts that are known of the model, and what AWS says of the pictures that it takes."""
        told = ModelInfo()
        try:
            config = self._with_model(config)
            model = foundation_model(config.model)
            call = await self._calls.of_control(config, f"/foundation-models/{path_part(model)}")
            answer = await self._transport.post_json(call, Limits.of(config))
            modalities = decoded(_described_decoder, answer, self.name).model_details.input_modalities
            told = ModelInfo(images=None if modalities is None else "IMAGE" in modalities)
        except ProviderError:
            pass  # then only what is known without AWS
        return merged(told, await known_facts(self.name, config.model))

    async def health_check(self, config: AgentConfig) -> Health:
        """List the models: proves address and credentials, and costs nothing. Credentials that may not list them, but
        are known to AWS, are healthy, too.
        """
        return await checked(lambda: self._health(config), self.health_limit_s)

    async def _health(self, config: AgentConfig) -> dict[str, str]:
        where = await self._calls.endpoints(config)
        call = await self._calls.of_control(config, "/foundation-models?byOutputModality=TEXT")
        try:
            await self._transport.post_json(call, health_limits(self.health_limit_s))
        except AuthenticationFailed as error:
            if "not authorized to perform: bedrock:ListFoundationModels" not in str(error):
                raise
        return {"base_url": shown(where.runtime), "region": where.region}

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    @contextlib.asynccontextmanager
    async def _answer(self, request: TurnRequest) -> AsyncIterator[EventStream | bytes]:
        """The answer as a stream, or whole where the model has no tools in streams."""
        config = request.config
        async with contextlib.AsyncExitStack() as stack:

            async def ask(dialect: Dialect) -> EventStream | bytes:
                body = requests.request_body(request, dialect)
                if b'"toolConfig"' in body and not dialect.streaming_tools:
                    return await self._post(config, config.model, "converse", body)
                call = await self._calls.of_model(config, config.model, "converse-stream", body)
                stream = self._transport.stream_events(
                    call, Limits.of(config), reject=exception_message, decoder=AwsEventStreamDecoder
                )
                return await stack.enter_async_context(stream)

            yield await self._adapted(config, ask)

    async def _adapted(self, config: AgentConfig, attempt: Callable[[Dialect], Awaitable[_T]]) -> _T:
        """Ask, and ask again without what the model refuses, which is remembered."""
        try:
            return await self._dialects.ask((self.name, config.model), Dialect(), attempt)
        except (RateLimited, AuthenticationFailed) as error:
            raise _sorted(error) from error.__cause__

    async def _post(self, config: AgentConfig, model: str, action: str, body: bytes) -> bytes:
        return await self._transport.post_json(
            await self._calls.of_model(config, model, action, body), Limits.of(config)
        )


def relaxed(dialect: Dialect, error: ProviderError) -> Dialect | None:
    """The dialect to try after AWS refused a request; None if the refusal is about something else."""
    if not isinstance(error, InvalidRequest | AuthenticationFailed):
        return None
    said = str(error).lower().replace("does not", "doesn't")
    if dialect.cache and ("prompt caching" in said or "cachepoint" in said):
        return msgspec.structs.replace(dialect, cache=False)
    if dialect.streaming_tools and "doesn't support tool use in streaming" in said:
        return msgspec.structs.replace(dialect, streaming_tools=False)
    if dialect.tool_choice and "doesn't support" in said and "toolchoice" in said.replace(" ", ""):
        return msgspec.structs.replace(dialect, tool_choice=False)
    if dialect.tools and "doesn't support tool use" in said:
        return msgspec.structs.replace(dialect, tools=False)
    if dialect.system and ("doesn't support system messages" in said or "doesn't support system prompts" in said):
        return msgspec.structs.replace(dialect, system=False)
    return None


def _sorted(error: ProviderError) -> ProviderError:
    """What passes, whatever its status says: a model that is still being loaded answers 429, though no limit was hit,
    and a request that was repeated for longer than its signature is good (five minutes) answers 403."""
    if any(word in str(error) for word in ("ModelNotReadyException", "Signature expired")):
        return Unavailable(
            str(error),
            provider=error.provider,
            status=error.status,
            retry_after_s=error.retry_after_s,
            usage=error.usage,
        )
    return error
