"""What a client spends on one streamed answer: CPU time per chunk, by our providers, vendors' SDKs and bare code.

    --format openai|responses|anthropic|gemini|ollama --client shoal|sdk|bare --base-url U --answers K --at-once A

`--base-url` is the server's own address. Prints `DONE {"us_per_chunk", "texts"}`: user and system time of this process,
over K times A answers, after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import msgspec

Answer = Callable[[], Awaitable[int]]
"""Makes one call and reads its answer to the end; returns how many pieces of text it saw."""

PROMPT = "Say something long."
KEY_VARIABLE = "SHOAL_BENCH_KEY"


@asynccontextmanager
async def shoal(form: str, base_url: str) -> AsyncIterator[Answer]:
    """Shoal's provider, from socket to `TurnEvent`."""
    import providers

    module, name, path = PROVIDERS[form]
    provider: Any = getattr(importlib.import_module(f"providers.{module}"), name)()
    config = providers.AgentConfig(model="replay", base_url=base_url + path, api_key_env=KEY_VARIABLE, max_tokens=4096)
    request = providers.TurnRequest(config=config, messages=(providers.Message.user(PROMPT),), task_id="bench")

    async def answer() -> int:
        texts = 0
        async for event in provider.stream_turn(request):
            if isinstance(event, providers.TextDelta):
                texts += 1
        return texts

    yield answer
    await provider.aclose()


PROVIDERS = {
    "openai": ("openai_chat", "OpenAIChatProvider", "/v1"),
    "responses": ("openai_responses", "OpenAIResponsesProvider", "/v1"),
    "anthropic": ("anthropic", "AnthropicProvider", ""),
    "gemini": ("gemini", "GeminiProvider", ""),
    "ollama": ("ollama", "OllamaProvider", ""),
}
"""Format -> module and class of our provider, and what follows the server's address."""


@asynccontextmanager
async def sdk(form: str, base_url: str) -> AsyncIterator[Answer]:
    """The vendor's own client, with `stream=True`: its cheapest way to stream."""
    async with _SDKS[form](base_url) as answer:
        yield answer


@asynccontextmanager
async def _openai_sdk(base_url: str) -> AsyncIterator[Answer]:
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=f"{base_url}/v1")
    messages: Any = [{"role": "user", "content": PROMPT}]

    async def answer() -> int:
        stream = await client.chat.completions.create(model="replay", messages=messages, stream=True)
        return sum([1 async for chunk in stream if chunk.choices and chunk.choices[0].delta.content])

    yield answer
    await client.close()


@asynccontextmanager
async def _responses_sdk(base_url: str) -> AsyncIterator[Answer]:
    import openai

    client = openai.AsyncOpenAI(api_key="none", base_url=f"{base_url}/v1")

    async def answer() -> int:
        stream = await client.responses.create(model="replay", input=PROMPT, stream=True)
        return sum([1 async for event in stream if event.type == "response.output_text.delta"])

    yield answer
    await client.close()


@asynccontextmanager
async def _anthropic_sdk(base_url: str) -> AsyncIterator[Answer]:
    import anthropic

    client = anthropic.AsyncAnthropic(api_key="none", base_url=base_url)
    messages: Any = [{"role": "user", "content": PROMPT}]

    async def answer() -> int:
        stream = await client.messages.create(model="replay", messages=messages, max_tokens=4096, stream=True)
        return sum([1 async for event in stream if event.type == "content_block_delta"])

    yield answer
    await client.close()


@asynccontextmanager
async def _gemini_sdk(base_url: str) -> AsyncIterator[Answer]:
    from google import genai

    client = genai.Client(api_key="none", http_options=genai.types.HttpOptions(base_url=base_url)).aio

    async def answer() -> int:
        stream = await client.models.generate_content_stream(model="replay", contents=PROMPT)
        return sum([1 async for chunk in stream if chunk.text])

    yield answer
    await client.aclose()


@asynccontextmanager
async def _ollama_sdk(base_url: str) -> AsyncIterator[Answer]:
    import ollama

    client: Any = ollama.AsyncClient(host=base_url)

    async def answer() -> int:
        stream = await client.chat(model="replay", messages=[{"role": "user", "content": PROMPT}], stream=True)
        return sum([1 async for part in stream if part.message.content])

    yield answer
    await client.close()


_SDKS: dict[str, Callable[[str], AbstractAsyncContextManager[Answer]]] = {
    "openai": _openai_sdk,
    "responses": _responses_sdk,
    "anthropic": _anthropic_sdk,
    "gemini": _gemini_sdk,
    "ollama": _ollama_sdk,
}


class _OpenAIDelta(msgspec.Struct):
    content: str | None = None


class _OpenAIChoice(msgspec.Struct):
    delta: _OpenAIDelta


class _OpenAIChunk(msgspec.Struct):
    choices: list[_OpenAIChoice]


class _ResponsesEvent(msgspec.Struct):
    type: str
    delta: str = ""


class _AnthropicDelta(msgspec.Struct):
    text: str = ""


class _AnthropicEvent(msgspec.Struct):
    delta: _AnthropicDelta | None = None


class _GeminiPart(msgspec.Struct):
    text: str = ""


class _GeminiContent(msgspec.Struct):
    parts: list[_GeminiPart] = []


class _GeminiCandidate(msgspec.Struct):
    content: _GeminiContent


class _GeminiChunk(msgspec.Struct):
    candidates: list[_GeminiCandidate]


class _OllamaMessage(msgspec.Struct):
    content: str


class _OllamaLine(msgspec.Struct):
    message: _OllamaMessage


class Bare(NamedTuple):
    """All that code without a library needs to know of a format."""

    path: str
    shape: type[msgspec.Struct]
    is_text: Callable[[Any], bool]
    separator: bytes = b"\n\n"


BARE = {
    "openai": Bare("/v1/chat/completions", _OpenAIChunk, lambda e: bool(e.choices and e.choices[0].delta.content)),
    "responses": Bare("/v1/responses", _ResponsesEvent, lambda e: e.type == "response.output_text.delta"),
    "anthropic": Bare("/v1/messages", _AnthropicEvent, lambda e: bool(e.delta and e.delta.text)),
    "gemini": Bare(
        "/v1beta/models/replay:streamGenerateContent?alt=sse",
        _GeminiChunk,
        lambda e: bool(e.candidates[0].content.parts[0].text),
        b"\r\n\r\n",
    ),
    "ollama": Bare("/api/chat", _OllamaLine, lambda e: bool(e.message.content), b"\n"),
}


@asynccontextmanager
async def bare(form: str, base_url: str) -> AsyncIterator[Answer]:
    """aiohttp and msgspec with nothing around them: no error handling, no limits, no tool calls, no events."""
    import aiohttp

    path, shape, is_text, separator = BARE[form]
    decode = msgspec.json.Decoder(shape).decode
    skipped = 0 if form == "ollama" else len("data: ")
    body = {"model": "replay", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    async with aiohttp.ClientSession() as session:

        async def answer() -> int:
            texts, rest = 0, b""
            async with session.post(base_url + path, json=body) as response:
                async for block in response.content.iter_any():
                    *events, rest = (rest + block).split(separator)
                    for event in events:
                        data = event[event.index(b"data: ") + skipped :] if skipped else event
                        texts += data != b"[DONE]" and is_text(decode(data))
            return texts

        yield answer


CLIENTS = {"shoal": shoal, "sdk": sdk, "bare": bare}


async def measure(client: str, form: str, base_url: str, answers: int, at_once: int) -> dict[str, float]:
    """CPU time per piece of text, in microseconds."""
    async with CLIENTS[client](form, base_url) as answer:
        await answer()
        texts, started = 0, time.process_time()
        for _ in range(answers):
            texts += sum(await asyncio.gather(*(answer() for _ in range(at_once))))
        return {"us_per_chunk": (time.process_time() - started) * 1e6 / texts, "texts": texts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--format", choices=sorted(BARE), required=True)
    parser.add_argument("--client", choices=sorted(CLIENTS), required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--answers", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    figures = asyncio.run(measure(given.client, given.format, given.base_url, given.answers, given.at_once))
    print("DONE " + json.dumps(figures), flush=True)
