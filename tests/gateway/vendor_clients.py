"""Agents that answer from scripts, and the vendors' official clients for the gateway that has them.

The clients are typed as `Any`: nearly every value of theirs is a union of dozens, of which a test knows the one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anthropic
import openai

from providers import AgentConfig
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer

SCHEMA_ANSWER = '{"city": "Paris", "degrees": 21}'
SLOW_WORDS = " ".join(["slow"] * 2000)
USAGE = {"input_tokens": 120, "output_tokens": 30, "cache_read_tokens": 100, "reasoning_tokens": 10}


def scripted(*scenarios: dict[str, Any], **fields: Any) -> AgentConfig:
    """An agent that answers so."""
    options = {"script": {"scenarios": list(scenarios)}}
    return AgentConfig(model="mock", provider="scripted", options=options, **{"tools": (), **fields})


def turns(*turns: dict[str, Any], match: str = "") -> dict[str, Any]:
    """A scenario: these turns for prompts that contain `match`."""
    return {"match": match, "turns": list(turns)}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A tool call of a script."""
    return {"name": name, "arguments": arguments}


PARIS = call("get_weather", city="Paris")
AGENTS = {
    "talker": scripted(turns({"text": "You said: {prompt}", "thinking": "Let me see.", "usage": USAGE})),
    "plain": scripted(turns({"text": "You said: {prompt}"})),
    "terse": scripted(turns({"text": "Cut here", "stop_reason": "max_tokens"})),
    "weather": scripted(
        turns(
            {"text": "Looking it up.", "tool_calls": [call("get_weather", city="Paris"), call("get_time", zone="CET")]}
        ),
    ),
    "mixed": scripted(
        turns(
            {"text": "First the shelf.", "tool_calls": [call("look_up", key="a")]},
            {
                "text": "Now you.",
                "thinking": "Both at once.",
                "tool_calls": [
                    call("look_up", key="b"),
                    call("get_weather", city="Rome"),
                    call("get_weather", city="Oslo"),
                ],
            },
        ),
        tools=("look_up",),
    ),
    "shelf": scripted(
        turns({"text": "One moment.", "tool_calls": [call("look_up", key="a")]}, {"text": "It is {last_result}."}),
        tools=("look_up",),
    ),
    "looker": scripted(turns({"tool_calls": [PARIS]}, {"text": "It is {last_result}."})),
    "guesser": scripted(turns({"tool_calls": [call("get_wether")]}, {"text": "{last_result}"}), tools=("*",)),
    "lengthy": scripted(
        turns({"tool_calls": [call("get_weather", city="Paris " * 60_000)]}, {"text": "{last_result}"})
    ),
    "answerer": scripted(turns({"text": "The tools said: {results}"})),
    "geographer": scripted(turns({"text": SCHEMA_ANSWER})),
    "fenced": scripted(turns({"text": f"Here it is:\n```json\n{SCHEMA_ANSWER}\n```"})),
    "slow": scripted(turns({"text": SLOW_WORDS, "chunk_delay_s": 0.05})),
    "silent": scripted(turns({"text": "at last", "delay_s": 60})),
    "broke": scripted(turns({"fault": {"kind": "context_too_long", "message": "too many tokens"}})),
    "refuser": scripted(turns({"fault": {"kind": "refused", "message": "I will not"}})),
    "restarter": scripted(
        turns({"text": "one two three four", "fault": {"kind": "stream_broken", "after_chunks": 3, "attempts": 1}})
    ),
}


@contextmanager
def openai_client(server: GatewayServer, **options: Any) -> Iterator[Any]:
    """OpenAI's client, with only its address and key changed."""
    settings = {"base_url": f"{server.url}/v1", "api_key": server.admin_key, "timeout": WITHIN_S, **options}
    with openai.OpenAI(**settings) as client:
        yield client


@asynccontextmanager
async def async_openai_client(server: GatewayServer, **options: Any) -> AsyncIterator[Any]:
    """The same for asyncio."""
    settings = {"base_url": f"{server.url}/v1", "api_key": server.admin_key, "timeout": WITHIN_S, **options}
    async with openai.AsyncOpenAI(**settings) as client:
        yield client


@contextmanager
def anthropic_client(server: GatewayServer, **options: Any) -> Iterator[Any]:
    """Anthropic's client, with only its address and key changed."""
    settings = {"base_url": server.url, "api_key": server.admin_key, "timeout": WITHIN_S, **options}
    with anthropic.Anthropic(**settings) as client:
        yield client


@asynccontextmanager
async def async_anthropic_client(server: GatewayServer, **options: Any) -> AsyncIterator[Any]:
    """The same for asyncio."""
    settings = {"base_url": server.url, "api_key": server.admin_key, "timeout": WITHIN_S, **options}
    async with anthropic.AsyncAnthropic(**settings) as client:
        yield client
