"""Messages with Anthropic's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from queue_backends import RUN_CANCELLED
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.vendor_clients import AGENTS, anthropic_client, async_anthropic_client
from worker.gateway.caller import Scope
from worker.settings import Settings

USER: Any = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME: Any = {"name": "get_time", "input_schema": {"type": "object"}}
THINKING: Any = {"type": "enabled", "budget_tokens": 2000}


class Weather(BaseModel):
    """What a structured answer is parsed to."""

    city: str
    degrees: int


@pytest.fixture(scope="module")
def gateway_config() -> Settings:
    """A gateway with the scripted agents and one tool of its own."""
    return gateway_settings(agents=AGENTS, python_tools=(str(Path(__file__).parent / "fleet_tools.py"),))


@pytest.fixture
def client(gateway_server: GatewayServer) -> Iterator[Any]:
    """The official client."""
    with anthropic_client(gateway_server) as made:
        yield made


def body_of(error: anthropic.APIStatusError) -> Any:
    """The answer's JSON."""
    return error.body


def test_answer_in_one_piece(client: Any) -> None:
    """A message has the text, the model's name as asked, and the usage with what was cached counted apart."""
    answer = client.messages.create(model="talker", max_tokens=100, messages=USER)
    assert [(block.type, block.text) for block in answer.content] == [("text", "You said: hello")]
    assert (answer.stop_reason, answer.model, answer.role) == ("end_turn", "talker", "assistant")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (
        20,
        100,
        30,
    )


def test_thinking_is_shown_to_who_asked(client: Any) -> None:
    """With `thinking`, the reasoning is a block of its own with a signature, which may come back."""
    answer = client.messages.create(model="talker", max_tokens=4000, messages=USER, thinking=THINKING)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking == "Let me see."
    assert answer.content[0].signature
    follow_up: Any = [*USER, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "more"}]
    again = client.messages.create(model="talker", max_tokens=4000, messages=follow_up, thinking=THINKING)
    assert again.content[-1].text == "You said: more"


def test_stream_has_the_vendors_events(client: Any) -> None:
    """Blocks are opened, told and closed in order; the usage comes at the end."""
    events = list(client.messages.create(model="talker", max_tokens=100, messages=USER, thinking=THINKING, stream=True))
    kinds = [event.type for event in events]
    told = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert told == ["message_start", *block, *block, "message_delta", "message_stop"]
    assert events[-2].usage.output_tokens == 30
    assert events[-2].delta.stop_reason == "end_turn"


def test_stream_helper(client: Any) -> None:
    """The client's own accumulation comes to the same message."""
    with client.messages.stream(model="talker", max_tokens=100, messages=USER, thinking=THINKING) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "You said: hello"
    assert final.content[0].thinking == "Let me see."
    assert final.content[0].signature
    assert final.usage.output_tokens == 30


@pytest.mark.parametrize("streams", [False, True])
def test_client_runs_its_tools(client: Any, streams: bool) -> None:
    """The model's calls are blocks; their results go back, and those of the agent's own tools are there too."""
    messages: Any = list(USER)
    if streams:
        with client.messages.stream(model="mixed", max_tokens=100, messages=messages, tools=[WEATHER]) as stream:
            answer = stream.get_final_message()
    else:
        answer = client.messages.create(model="mixed", max_tokens=100, messages=messages, tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    calls = [block for block in answer.content if block.type == "tool_use"]
    assert [made.input for made in calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    results = [
        {"type": "tool_result", "tool_use_id": calls[0].id, "content": "sun-0"},
        {
            "type": "tool_result",
            "tool_use_id": calls[1].id,
            "content": [{"type": "text", "text": "sun-1"}],
            "is_error": True,
        },
    ]
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    final = client.messages.create(model="answerer", max_tokens=100, messages=messages, tools=[WEATHER])
    assert final.content[0].text == "The tools said: shelf-a\nshelf-b\nsun-0\nsun-1"


def test_clients_own_tool_loop(client: Any) -> None:
    """The client's tool runner asks for a conversation that the server holds; told that there is none, it sends all of
    it each time, and comes to the answer."""

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"sun in {city}"

    runner = client.beta.messages.tool_runner(model="looker", max_tokens=100, messages=USER, tools=[get_weather])
    assert [message.content[-1].type for message in runner] == ["tool_use", "text"]
    assert runner.until_done().content[-1].text == "It is sun in Paris."
    with pytest.raises(anthropic.BadRequestError) as refused:
        client.beta.messages.create(model="looker", max_tokens=100, messages=USER, thread={"type": "create"})
    assert body_of(refused.value)["error"]["details"]["error_code"] == "thread_unsupported_request"


def test_tool_choice(client: Any) -> None:
    """A client may want one call at a time, a certain tool, or none."""
    choice: Any = {"type": "auto", "disable_parallel_tool_use": True}
    answer = client.messages.create(
        model="weather", max_tokens=100, messages=USER, tools=[WEATHER, TIME], tool_choice=choice
    )
    assert [block.name for block in answer.content if block.type == "tool_use"] == ["get_weather"]
    with pytest.raises(anthropic.BadRequestError, match="no tool"):
        client.messages.create(
            model="weather", max_tokens=100, messages=USER, tools=[TIME], tool_choice={"type": "tool", "name": "x"}
        )


def test_structured_answer(client: Any) -> None:
    """An answer has to fit the schema that the client gives; what the model wrote around it is left out."""
    answer = client.messages.parse(model="fenced", max_tokens=100, messages=USER, output_format=Weather)
    assert answer.parsed_output == Weather(city="Paris", degrees=21)


def test_system_blocks_images_and_limits(client: Any) -> None:
    """All kinds of content that agents can read are taken."""
    answer = client.messages.create(
        model="plain",
        max_tokens=100,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                    },
                    {"type": "text", "text": "What is this?"},
                ],
            },
        ],
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
        metadata={"user_id": "somebody"},
    )
    assert answer.content[0].text == "You said: What is this?"
    cut = client.messages.create(model="terse", max_tokens=5, messages=USER)
    assert cut.stop_reason == "max_tokens"


def test_refusal_is_an_answer(client: Any) -> None:
    """A model that declines ends with the vendor's stop reason, not with an error."""
    assert client.messages.create(model="refuser", max_tokens=100, messages=USER).stop_reason == "refusal"


def test_count_tokens(client: Any) -> None:
    """More text is more tokens, and so are tools and a system prompt."""
    few = client.messages.count_tokens(model="plain", messages=USER).input_tokens
    longer: Any = [{"role": "user", "content": "hello " * 100}]
    assert client.messages.count_tokens(model="plain", messages=longer).input_tokens > few
    assert client.messages.count_tokens(model="plain", messages=USER, tools=[WEATHER]).input_tokens > few
    assert client.messages.count_tokens(model="plain", messages=USER, system="Be brief. " * 20).input_tokens > few


def test_counting_for_an_agent_that_is_not_there(client: Any) -> None:
    """An agent that the caller must not use does not exist for it here either."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.count_tokens(model="nobody", messages=USER)
    assert body_of(missing.value)["error"]["param"] == "model"


def test_models_in_the_vendors_form(client: Any) -> None:
    """The list of agents, page by page, and one of them."""
    listed = list(client.models.list(limit=3))
    assert {*AGENTS, "default"} <= {model.id for model in listed}
    assert client.models.retrieve("talker").display_name == "talker"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")


def test_errors_are_the_clients_own(gateway_server: GatewayServer, client: Any) -> None:
    """Each kind of failure comes out as the exception class that the vendor's users expect, with the vendor's type."""
    with pytest.raises(anthropic.NotFoundError) as unknown:
        client.messages.create(model="nobody", max_tokens=100, messages=USER)
    assert body_of(unknown.value)["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="too many tokens") as too_long:
        client.messages.create(model="broke", max_tokens=100, messages=USER)
    assert body_of(too_long.value)["error"]["type"] == "invalid_request_error"
    assert too_long.value.request_id
    with anthropic_client(gateway_server, api_key="wrong") as stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model="plain", max_tokens=100, messages=USER)
    without = gateway_server.make_key([Scope.TASKS_READ])
    with anthropic_client(gateway_server, api_key=without) as reader, pytest.raises(anthropic.PermissionDeniedError):
        reader.messages.create(model="plain", max_tokens=100, messages=USER)
    with pytest.raises(anthropic.BadRequestError, match="end with a user message"):
        client.messages.create(model="plain", max_tokens=9, messages=[*USER, {"role": "assistant", "content": "I"}])
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match="run in the fleet"):
        client.messages.create(model="plain", max_tokens=9, messages=USER, tools=[search])


async def test_client_that_leaves_a_stream_ends_the_task(gateway_server: GatewayServer) -> None:
    """Closing a stream stops the spending."""
    async with async_anthropic_client(gateway_server) as client:
        stream = await client.messages.create(model="slow", max_tokens=100, messages=USER, stream=True)
        begun = await anext(aiter(stream))
        await stream.close()
    task_id = begun.message.id.removeprefix("msg_")
    result = gateway_server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))
    assert result.error == RUN_CANCELLED


async def test_async_client(gateway_server: GatewayServer) -> None:
    """The client for asyncio works as well."""
    async with (
        async_anthropic_client(gateway_server) as client,
        client.messages.stream(model="plain", max_tokens=100, messages=USER) as stream,
    ):
        final = await stream.get_final_message()
    assert final.content[0].text == "You said: hello"
