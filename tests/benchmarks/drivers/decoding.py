"""What a client spends on one streamed answer: CPU time per chunk, by our providers, vendors' SDKs and bare code.

    --format openai|anthropic --client shoal|sdk|bare --base-url U --chunks N --answers K --at-once A

Prints `DONE {"us_per_chunk", "texts"}`: user and system time of this process, over K times A answers, after a warm-up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

Answer = Callable[[], Awaitable[int]]
"""Makes one call and reads its answer to the end; returns how many pieces of text it saw."""

PROMPT = "Say something long."
KEY_VARIABLE = "SHOAL_BENCH_KEY"


@asynccontextmanager
async def shoal(form: str, base_url: str) -> AsyncIterator[Answer]:
    """Shoal's provider, from socket to `TurnEvent`."""
    import providers

    provider: Any
    if form == "openai":
        from providers.openai_chat import OpenAIChatProvider

        provider = OpenAIChatProvider()
    else:
        from providers.anthropic import AnthropicProvider

        provider = AnthropicProvider()
    config = providers.AgentConfig(
        model="replay", provider=form, base_url=base_url, api_key_env=KEY_VARIABLE, max_tokens=4096
    )
    request = providers.TurnRequest(config=config, messages=(providers.Message.user(PROMPT),), task_id="bench")

    async def answer() -> int:
        texts = 0
        async for event in provider.stream_turn(request):
            if isinstance(event, providers.TextDelta):
                texts += 1
        return texts

    yield answer
    await provider.aclose()


@asynccontextmanager
async def sdk(form: str, base_url: str) -> AsyncIterator[Answer]:
    """The vendor's own client, with `stream=True`: its cheapest way to stream."""
    messages: Any = [{"role": "user", "content": PROMPT}]
    if form == "openai":
        import openai

        client = openai.AsyncOpenAI(api_key="none", base_url=base_url)

        async def answer() -> int:
            stream = await client.chat.completions.create(model="replay", messages=messages, stream=True)
            return sum([1 async for chunk in stream if chunk.choices and chunk.choices[0].delta.content])

        yield answer
        await client.close()
        return
    import anthropic

    anthropic_client = anthropic.AsyncAnthropic(api_key="none", base_url=base_url.removesuffix("/v1"))

    async def anthropic_answer() -> int:
        stream = await anthropic_client.messages.create(model="replay", messages=messages, max_tokens=4096, stream=True)
        return sum([1 async for event in stream if event.type == "content_block_delta"])

    yield anthropic_answer
    await anthropic_client.close()


class _OpenAIDelta(msgspec.Struct):
    content: str | None = None


class _OpenAIChoice(msgspec.Struct):
    delta: _OpenAIDelta


class _OpenAIChunk(msgspec.Struct):
    choices: list[_OpenAIChoice]


class _AnthropicDelta(msgspec.Struct):
    text: str = ""


class _AnthropicEvent(msgspec.Struct):
    delta: _AnthropicDelta | None = None


def _openai_text(decoder: msgspec.json.Decoder[_OpenAIChunk], data: bytes) -> bool:
    chunk = decoder.decode(data)
    return bool(chunk.choices and chunk.choices[0].delta.content)


def _anthropic_text(decoder: msgspec.json.Decoder[_AnthropicEvent], data: bytes) -> bool:
    event = decoder.decode(data)
    return bool(event.delta and event.delta.text)


@asynccontextmanager
async def bare(form: str, base_url: str) -> AsyncIterator[Answer]:
    """aiohttp and msgspec with nothing around them: no error handling, no limits, no tool calls, no events."""
    import aiohttp

    decoder: Any = msgspec.json.Decoder(_OpenAIChunk if form == "openai" else _AnthropicEvent)
    is_text: Any = _openai_text if form == "openai" else _anthropic_text
    url = base_url + ("/chat/completions" if form == "openai" else "/messages")
    body = {"model": "replay", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    async with aiohttp.ClientSession() as session:

        async def answer() -> int:
            texts, rest = 0, b""
            async with session.post(url, json=body) as response:
                async for block in response.content.iter_any():
                    *events, rest = (rest + block).split(b"\n\n")
                    for event in events:
                        data = event[event.index(b"data: ") + 6 :]
                        texts += data != b"[DONE]" and is_text(decoder, data)
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
    parser.add_argument("--format", choices=["openai", "anthropic"], required=True)
    parser.add_argument("--client", choices=sorted(CLIENTS), required=True)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--answers", type=int, default=5)
    parser.add_argument("--at-once", type=int, default=1)
    given = parser.parse_args()
    figures = asyncio.run(measure(given.client, given.format, given.base_url, given.answers, given.at_once))
    print("DONE " + json.dumps(figures), flush=True)
