"""Google Cloud's Vertex AI: Gemini, and Anthropic's Claude, in a project of one's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import ClassVar, TypeVar

import msgspec
from msgspec import Struct

from providers import gemini_answers as answers
from providers import gemini_models as models
from providers import gemini_request as requests
from providers import vertex_claude as claude
from providers.anthropic_events import MessageReader, error_event
from providers.calls import Call, Limits
from providers.capabilities import Capability
from providers.embedding_model import embedding_model
from providers.errors import AuthenticationFailed, InvalidRequest, ProviderError
from providers.event_stream import EventStream
from providers.gemini_events import ContentReader, error_chunk
from providers.google_auth import GoogleAuth
from providers.google_credentials import ApiKey, Source, find_source
from providers.google_turn import opened
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.model_facts import known_facts, merged
from providers.streamed_turn import read_turn
from providers.transport import Transport
from providers.vertex_address import DEFAULT_LOCATION, Model, address, location_of, project_of, read_model
from providers.vertex_embeddings import batches, embedding_body

_HEALTH_MODEL = "gemini-2.5-flash"
_EMBEDDING_MODEL = "gemini-embedding-001"
_EMBEDDINGS_AT_ONCE = 4

_T = TypeVar("_T")


class _Place(Struct, frozen=True, kw_only=True):
    """Where calls of an agent go, and in whose name."""

    prefix: str
    headers: Mapping[str, str]
    source: Source
    token: str

    def call(self, provider: str, path: str, body: bytes) -> Call:
        return Call(provider=provider, url=f"{self.prefix}/{path}", headers=self.headers, body=body)


class VertexProvider(Configurable, ChatProvider):
    """Models by name: `gemini-…` and `claude-…`, with or without `publisher/` before; or a tuned model's endpoint.

    The project is `options.project`, else the setting `project`, else `GOOGLE_CLOUD_PROJECT`, else that of the
    credentials; the location `options.location`, the setting `location`, `GOOGLE_CLOUD_LOCATION`, or `global`. For
    credentials see `google_credentials.find_source`. `config.options` may also have `extra_body`, `extra_headers`,
    `embedding_model`, `dimensions`, `embedding_task`, and for Claude `cache`.
    """

    name = "vertex"
    native_output_schema = True
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.STOP_REASON: "for Gemini, the API says `STOP` for both",
        Capability.CACHE_WRITE_TOKENS: "for Gemini, the API does not report it",
        Capability.EARLY_USAGE: "for Gemini, the API reports usage at the end",
        Capability.VENDOR_MODEL_INFO: "the API does not tell limits",
    }
    params = (
        ConfigParam(key="project", description="Google Cloud project; else GOOGLE_CLOUD_PROJECT"),
        ConfigParam(key="location", description=f"Region; else GOOGLE_CLOUD_LOCATION or {DEFAULT_LOCATION}"),
        ConfigParam(
            key="api_key", description="Key of express mode, access token, or credentials as JSON", secret=True
        ),
        ConfigParam(key="credentials_file", description="Path; else GOOGLE_APPLICATION_CREDENTIALS"),
        ConfigParam(key="base_url", description="Address; else GOOGLE_VERTEX_BASE_URL or the location's own"),
        ConfigParam(key="api_version", description="Version of the API", default="v1"),
        ConfigParam(key="model", description="Model of agents that name none"),
        ConfigParam(key="embedding_model", description=f"Model for embeddings; else {_EMBEDDING_MODEL}"),
    )

    def __init__(self, transport: Transport | None = None) -> None:
        self._transport = transport or Transport()
        self._auth = GoogleAuth(self._transport, self.name)

    def sends_schema(self, config: AgentConfig) -> bool:
        """Claude is asked in the prompt here, and so are models before Gemini 3 that have tools."""
        model = read_model(self._with_model(config).model)
        return model.publisher == "google" and (not config.tools or models.takes_schema_with_tools(model.name))

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed answer. Raises a `ProviderError` that carries the usage known by then."""
        config = self._with_model(request.config)
        request = msgspec.structs.replace(request, config=config)
        model = read_model(config.model)
        is_claude = model.publisher == "anthropic"
        reader = MessageReader(self.name) if is_claude else ContentReader(self.name, request)
        opening = opened(request, lambda asked: self._turn(asked, model))
        async with contextlib.aclosing(read_turn(opening, reader)) as events:
            async for event in events:
                yield event

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the model's own limit, for Claude 4000.

        Raises a `ProviderError`.
        """
        config = msgspec.structs.replace(self._with_model(config), system_prompt=system_prompt)
        model, messages = read_model(config.model), [Message.user(prompt)]
        if model.publisher == "anthropic":
            body = claude.completion_body(config, messages, max_tokens, model.name)
            return claude.completion_text(self.name, await self._post(config, model, f"{model.path}:rawPredict", body))
        body = requests.completion_body(config, messages, max_tokens, self.name)
        answer = await self._post(config, model, f"{model.path}:generateContent", body)
        return answers.completion_text(self.name, answer)

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, else the setting `embedding_model`, else the
        model that `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        model = read_model(embedding_model(config, self.value, _EMBEDDING_MODEL))
        slots = asyncio.Semaphore(_EMBEDDINGS_AT_ONCE)  # the newest models take one text a request

        async def ask(batch: Sequence[str]) -> list[list[float]]:
            async with slots:
                body = embedding_body(config, batch)
                answer = await self._post(config, model, f"{model.path}:predict", body)
            return answers.predicted_vectors(self.name, answer, len(batch))

        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(ask(batch), name="embed") for batch in batches(model.name, texts)]
        except* ProviderError as failed:
            first = failed.exceptions[0]
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from first.__cause__
        return [vector for task in asked for vector in task.result()]

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """Input tokens of these messages and the system prompt, counted by the vendor. Raises a `ProviderError`."""
        config = self._with_model(config)
        return await self._count(config, messages, Limits.of(config))

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What is known of the model: the API tells nothing. Never raises."""
        with contextlib.suppress(ProviderError):
            name = read_model(self._with_model(config).model).name
            return merged(models.with_abilities(name, ModelInfo()), await known_facts(self.name, name))
        return ModelInfo()

    async def health_check(self, config: AgentConfig) -> Health:
        """Count the tokens of one word: proves address, credentials, project and model, and costs nothing."""

        async def count() -> Mapping[str, str]:
            asked = self._with_model(msgspec.structs.replace(config, system_prompt=""))
            asked = asked if asked.model else msgspec.structs.replace(asked, model=_HEALTH_MODEL)
            await self._count(asked, [Message.user("ping")], health_limits(self.health_limit_s))
            return {"location": location_of(config, self.value), "model": asked.model}

        return await checked(count, self.health_limit_s)

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    async def _count(self, config: AgentConfig, messages: Sequence[Message], limits: Limits) -> int:
        model = read_model(config.model)
        if model.publisher == "anthropic":
            body = claude.count_body(config, messages, model.name)
            return claude.token_count(self.name, await self._post(config, model, claude.COUNT_PATH, body, limits))
        body = msgspec.json.encode(requests.conversation_body(config, messages, self.name))
        return answers.token_count(
            self.name, await self._post(config, model, f"{model.path}:countTokens", body, limits)
        )

    async def _post(
        self, config: AgentConfig, model: Model, path: str, body: bytes, limits: Limits | None = None
    ) -> bytes:
        wanted = limits or Limits.of(config)
        return await self._signed(
            config, model, lambda place: self._transport.post_json(place.call(self.name, path, body), wanted)
        )

    def _turn(self, request: TurnRequest, model: Model) -> contextlib.AbstractAsyncContextManager[EventStream]:
        if model.publisher == "anthropic":
            body, method, reject = claude.request_body(request, model.name), "streamRawPredict", error_event
        else:
            body = requests.request_body(request, self.name)
            method, reject = "streamGenerateContent?alt=sse", error_chunk
        path = f"{model.path}:{method}"
        return self._events(request.config, model, path, body, lambda data: reject(data, self.name))

    @contextlib.asynccontextmanager
    async def _events(
        self, config: AgentConfig, model: Model, path: str, body: bytes, reject: Callable[[bytes], ProviderError | None]
    ) -> AsyncIterator[EventStream]:
        async with contextlib.AsyncExitStack() as stack:

            def opened(place: _Place) -> Awaitable[EventStream]:
                call = place.call(self.name, path, body)
                return stack.enter_async_context(self._transport.stream_events(call, Limits.of(config), reject=reject))

            yield await self._signed(config, model, opened)

    async def _signed(self, config: AgentConfig, model: Model, attempt: Callable[[_Place], Awaitable[_T]]) -> _T:
        """Ask, and once more with a new token where the present one is no longer taken."""
        place = await self._place(config, model)
        try:
            return await attempt(place)
        except AuthenticationFailed as error:
            if error.status != 401 or not self._auth.forget(place.source, place.token):
                raise
        return await attempt(await self._place(config, model))

    async def _place(self, config: AgentConfig, model: Model) -> _Place:
        named = project_of(config, self.value)
        source = find_source(config, self.value, has_project=bool(named))
        extra = {"content-type": "application/json", **config.options.get("extra_headers", {})}
        if isinstance(source, ApiKey):
            token, headers = source.key, {**extra, "x-goog-api-key": source.key}
        else:
            token = await self._auth.token(source)
            headers = {**extra, "authorization": f"Bearer {token}"}
        return _Place(
            prefix=await self._prefix(config, model, source, named), headers=headers, source=source, token=token
        )

    async def _prefix(self, config: AgentConfig, model: Model, source: Source, named: str) -> str:
        """What stands before a model's path. Raises `InvalidRequest` if the project is not known and has to be."""
        location = location_of(config, self.value)
        if model.path.startswith("projects/"):
            return address(config, self.value, location)
        if isinstance(source, ApiKey) and not named and model.publisher == "google":
            return address(config, self.value, DEFAULT_LOCATION)
        project = named or await self._auth.project(source)
        if not project:
            raise InvalidRequest(
                f"{self.name}: which Google Cloud project? Set GOOGLE_CLOUD_PROJECT, the setting `project`, or "
                "`options.project` of the agent",
                provider=self.name,
            )
        return f"{address(config, self.value, location)}/projects/{project}/locations/{location}"
