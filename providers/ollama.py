"""Ollama's own chat API: models on one's own machines, and on ollama.com."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from providers import ollama_request as requests
from providers.calls import Call, Limits, shown
from providers.capabilities import Capability
from providers.credentials import api_key, base_url
from providers.decoding import UNREADABLE, decoded, unreadable
from providers.embedding_model import embedding_model
from providers.errors import BadResponse, ContextTooLong, InvalidRequest, ProviderError, Unavailable
from providers.event_stream import EventStream
from providers.health import checked, health_limits
from providers.interfaces import ChatProvider, ConfigParam, Health, ModelInfo
from providers.live_config import Configurable
from providers.messages import AgentConfig, Message, TurnEvent, TurnRequest
from providers.ndjson import NdjsonDecoder
from providers.ollama_address import address, is_cloud
from providers.ollama_events import CallIds, ChatReader, error_line
from providers.ollama_models import Model, Models, read_model
from providers.ollama_pull import OnProgress, pull
from providers.ollama_request import Dialect, Serving
from providers.streamed_turn import read_turn
from providers.token_estimate import estimated_tokens
from providers.transport import Transport

_EMBEDDING_MODEL = "nomic-embed-text"


class _Said(msgspec.Struct):
    content: str | None = None


class _Answer(msgspec.Struct):
    message: _Said | None = None


class _Vectors(msgspec.Struct):
    embeddings: list[list[float]]


_answer_decoder = msgspec.json.Decoder(_Answer)
_vectors_decoder = msgspec.json.Decoder(_Vectors)
_models_decoder = msgspec.json.Decoder(Models)

_T = TypeVar("_T")


class OllamaProvider(Configurable, ChatProvider):
    """The server is at `config.base_url`, else the setting `base_url`, else `OLLAMA_HOST`, else this machine.

    `OLLAMA_API_KEY` (or the variable that `config.api_key_env` names) is a key, which only ollama.com requires.
    `config.options` may have `num_ctx`, `keep_alive`, `pull` (true: download a model that is missing), `truncate`
    (true: let the server drop old messages that do not fit), `model_options` (object: more of Ollama's options),
    `embedding_model`, `dimensions`, `extra_body` and `extra_headers` (objects).
    """

    name = "ollama"
    native_output_schema = True
    gaps: ClassVar[Mapping[Capability, str]] = {
        Capability.TOOL_REQUIRED: "the API cannot demand a call",
        Capability.IMAGE_URLS: "the API takes pictures as data only",
        Capability.STOP_REASON: "the API says `stop` for both",
        Capability.REFUSAL_REASON: "local models have no such signal",
        Capability.CACHE_READ_TOKENS: "the API does not report it",
        Capability.CACHE_WRITE_TOKENS: "the API does not report it",
        Capability.REASONING_TOKENS: "the API does not report it",
        Capability.EARLY_USAGE: "the API reports usage at the end",
        Capability.VENDOR_COUNT: "the API cannot count",
    }
    params = (
        ConfigParam(key="base_url", description="Where the server is: host, host:port or URL; else OLLAMA_HOST"),
        ConfigParam(key="api_key", description="Key for ollama.com; else OLLAMA_API_KEY", secret=True),
        ConfigParam(key="model", description="Model of agents that name none"),
        ConfigParam(key="embedding_model", description=f"Model for embeddings; else {_EMBEDDING_MODEL}"),
        ConfigParam(key="num_ctx", type="int", description="Context window, in tokens; else the server's default"),
        ConfigParam(key="keep_alive", description="How long a model stays loaded: seconds, or 10m; -1: for ever"),
        ConfigParam(key="pull", type="bool", description="Download models that are missing", default="false"),
    )

    def __init__(self, transport: Transport | None = None, *, on_pull: OnProgress | None = None) -> None:
        self._transport = transport or Transport()
        self._on_pull = on_pull
        self._pulls: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], asyncio.Lock]] = (
            WeakKeyDictionary()
        )

    def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        """One streamed answer. Raises a `ProviderError` that carries the usage known by then."""
        return read_turn(self._events(request), ChatReader(CallIds.of(request)))

    async def complete(self, config: AgentConfig, system_prompt: str, prompt: str, max_tokens: int) -> str:
        """The answer's text; `max_tokens` of zero or less means the model's own limit. Raises a `ProviderError`."""
        config = msgspec.structs.replace(self._with_model(config), system_prompt=system_prompt)
        body = requests.completion_body(config, [Message.user(prompt)], max_tokens, self._serving(config))
        answer = await self._adapted(config, config.model, lambda _: self._post(config, "/api/chat", body))
        message = decoded(_answer_decoder, answer, self.name).message
        if message is None or not message.content:
            raise BadResponse("provider returned empty response", provider=self.name)
        return message.content

    async def embed(self, config: AgentConfig, texts: Sequence[str]) -> list[list[float]]:
        """One vector per text, in order, by `options.embedding_model`, else the setting `embedding_model`, else the
        model that `AGENT_EMBEDDING_MODEL` or `AGENT_EMBED_MODEL` names. Raises a `ProviderError`.
        """
        if not texts:
            return []
        model = embedding_model(config, self.value, _EMBEDDING_MODEL)
        body = requests.embedding_body(config, model, texts, self._serving(config))
        answer = await self._adapted(config, model, lambda _: self._post(config, "/api/embed", body))
        vectors = decoded(_vectors_decoder, answer, self.name).embeddings
        if len(vectors) != len(texts):
            said = f"{self.name} embed: {len(vectors)} vectors came back for {len(texts)} texts"
            raise BadResponse(said, provider=self.name)
        return vectors

    async def count_tokens(self, config: AgentConfig, messages: Sequence[Message]) -> int:
        """An estimate by characters: the API cannot count."""
        return estimated_tokens(config.system_prompt, messages)

    async def model_info(self, config: AgentConfig) -> ModelInfo:
        """What the server says of the model. The window is `num_ctx` where it is set, here or in the model's file."""
        try:
            config = self._with_model(config)
            body = msgspec.json.encode({"model": config.model})
            return self._model(await self._post(config, "/api/show", body)).info(self._serving(config).num_ctx)
        except ProviderError:
            return ModelInfo()

    async def health_check(self, config: AgentConfig) -> Health:
        """List the models: proves the address and costs nothing. `details` tell whether the agent's is among them."""
        return await checked(lambda: self._health(config), self.health_limit_s)

    async def _health(self, config: AgentConfig) -> dict[str, str]:
        call = self._call(config, "/api/tags", b"")
        limits = health_limits(self.health_limit_s)
        try:
            answer = await self._transport.get_json(self.name, call.url, call.headers, limits)
        except ProviderError as error:
            raise _explained(error, self._with_model(config).model) from error.__cause__
        models = decoded(_models_decoder, answer, self.name)
        details = {"base_url": shown(self._address(config)), "models": str(len(models.models))}
        model = self._with_model(config).model
        if model and not models.has(model):
            details["missing"] = f"{model}: run `ollama pull {model}` on the server"
        return details

    async def pull(self, config: AgentConfig, model: str) -> None:
        """Download a model to the server, unless another call of this process has just done so.

        Progress goes to `on_pull`, or else to the log. Raises a `ProviderError`.
        """
        locks = self._pulls.setdefault(asyncio.get_running_loop(), {})
        lock = locks.setdefault((self._address(config), model), asyncio.Lock())
        waited = lock.locked()
        async with lock:
            if not (waited and await self._is_there(config, model)):
                body = msgspec.json.encode({"model": model, "stream": True})
                call = self._call(config, "/api/pull", body)
                await pull(self._transport, call, model, Limits.of(config), self._on_pull)

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        await self._transport.aclose()

    async def _is_there(self, config: AgentConfig, model: str) -> bool:
        try:
            await self._post(config, "/api/show", msgspec.json.encode({"model": model}))
        except InvalidRequest:
            return False
        return True

    @contextlib.asynccontextmanager
    async def _events(self, request: TurnRequest) -> AsyncIterator[EventStream]:
        config = self._with_model(request.config)
        request, serving = msgspec.structs.replace(request, config=config), self._serving(config)
        async with contextlib.AsyncExitStack() as stack:

            def open_stream(dialect: Dialect) -> Awaitable[EventStream]:
                call = self._call(config, "/api/chat", requests.request_body(request, serving, dialect))
                stream = self._transport.stream_events(
                    call, Limits.of(config), reject=error_line, decoder=NdjsonDecoder
                )
                return stack.enter_async_context(stream)

            yield await self._adapted(config, config.model, open_stream)

    async def _adapted(self, config: AgentConfig, model: str, attempt: Callable[[Dialect], Awaitable[_T]]) -> _T:
        """Ask, and ask again without what the model refuses, or once the missing model is there."""
        # Not remembered: the model behind a name may be another one tomorrow, and a refusal costs the server nothing.
        dialect, pulled = Dialect(), False
        while True:
            try:
                return await attempt(dialect)
            except ProviderError as error:
                easier = relaxed(dialect, error)
                may_pull = easier is None and not pulled and _is_missing(error) and self._may_pull(config)
                if easier is None and not may_pull:
                    raise _explained(error, model) from error.__cause__
            dialect = easier or dialect
            if may_pull:
                pulled = True
                await self.pull(config, model)

    async def _post(self, config: AgentConfig, path: str, body: bytes) -> bytes:
        return await self._transport.post_json(self._call(config, path, body), Limits.of(config))

    def _call(self, config: AgentConfig, path: str, body: bytes) -> Call:
        where = self._address(config)
        key = api_key(config, "OLLAMA_API_KEY", self.name, required=is_cloud(where), live=self.value("api_key"))
        headers = {"content-type": "application/json", **config.options.get("extra_headers", {})}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return Call(provider=self.name, url=where + path, headers=headers, body=body)

    def _address(self, config: AgentConfig) -> str:
        return address(base_url(config, "OLLAMA_HOST", "", live=self.value("base_url")))

    def _serving(self, config: AgentConfig) -> Serving:
        num_ctx = config.options.get("num_ctx") or self.value("num_ctx")
        keep_alive: Any = config.options.get("keep_alive", self.value("keep_alive") or None)
        if isinstance(keep_alive, str) and keep_alive.removeprefix("-").isdecimal():
            keep_alive = int(keep_alive)  # as a text, the server wants a unit
        try:
            return msgspec.convert({"num_ctx": num_ctx or None, "keep_alive": keep_alive}, Serving, strict=False)
        except msgspec.ValidationError as error:
            said = f"{self.name}: options {{num_ctx: {num_ctx!r}, keep_alive: {keep_alive!r}}}: {error}"
            raise InvalidRequest(said, provider=self.name) from error

    def _may_pull(self, config: AgentConfig) -> bool:
        return str(config.options.get("pull", self.value("pull"))).lower() == "true"

    def _model(self, answer: bytes) -> Model:
        try:
            return read_model(answer)
        except UNREADABLE as error:
            raise unreadable(error, self.name, "the model's facts") from error


def relaxed(dialect: Dialect, error: ProviderError) -> Dialect | None:
    """The dialect to try after the server refused a request; None if the refusal is about something else."""
    if not isinstance(error, InvalidRequest) and error.status != 500:
        return None
    said = str(error).lower()
    if dialect.tools and "does not support tools" in said:
        return msgspec.structs.replace(dialect, tools=False)
    if dialect.efforts and "think value" in said:
        return msgspec.structs.replace(dialect, efforts=False)
    if dialect.thinking and ("does not support thinking" in said or "think value" in said):
        return msgspec.structs.replace(dialect, thinking=False)
    return None


def _is_missing(error: ProviderError) -> bool:
    said = str(error).lower()
    return error.status == 404 and "model" in said and "not found" in said


def _explained(error: ProviderError, model: str) -> ProviderError:
    """The error, with what to do about it where that is known."""
    if _is_missing(error):
        advice = f"run `ollama pull {model}` on the server, or set options.pull to true"
    elif isinstance(error, Unavailable) and "cannot reach" in str(error):
        advice = "is Ollama running there? Start it with `ollama serve`, or set OLLAMA_HOST or base_url to where it is"
    elif isinstance(error, ContextTooLong):
        advice = "the window is set by options.num_ctx; options.truncate lets the server drop old messages"
    else:
        return error
    return type(error)(
        f"{error}: {advice}",
        provider=error.provider,
        status=error.status,
        retry_after_s=error.retry_after_s,
        usage=error.usage,
    )
