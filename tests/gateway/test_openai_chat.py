"""Chat Completions with OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from queue_backends import RUN_CANCELLED, CancelOutcome, TaskResult, TaskState
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.vendor_clients import AGENTS, async_openai_client, openai_client
from worker.client import Handle
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.settings import Settings

USER: Any = [{"role": "user", "content": "hello"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time"}}


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
    with openai_client(gateway_server) as made:
        yield made


def result_of(server: GatewayServer, completion_id: str) -> TaskResult:
    """How the task of a completion has ended."""
    task_id = completion_id.removeprefix("chatcmpl-")
    return server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))


def cancelled(server: GatewayServer, task_id: str) -> list[CancelOutcome]:
    """What cancelling a task meets."""
    return server.do(lambda gateway: gateway.backend.queue.cancel([task_id]))


async def running_task(server: GatewayServer, agent: str) -> str:
    """The id of the task that an agent works on, as soon as it does."""

    async def find(gateway: Gateway) -> str | None:
        found = await gateway.backend.queue.list_tasks(states=[TaskState.RUNNING])
        return next((status.id for status in found if status.task and status.task.agent == agent), None)

    async with asyncio.timeout(WITHIN_S):
        while (task_id := await asyncio.to_thread(server.do, find)) is None:
            await asyncio.sleep(0)
    return task_id


def test_answer_in_one_piece(client: Any) -> None:
    """A completion has the text, the model's name as asked, the usage with details, and the reasoning beside it."""
    answer = client.chat.completions.create(model="talker", messages=USER)
    [choice] = answer.choices
    assert choice.message.content == "You said: hello"
    assert choice.finish_reason == "stop"
    assert answer.model == "talker"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (120, 30, 150)
    assert answer.usage.prompt_tokens_details.cached_tokens == 100
    assert answer.usage.completion_tokens_details.reasoning_tokens == 10
    assert choice.message.model_extra["reasoning_content"] == "Let me see."


def test_stream(client: Any) -> None:
    """A stream begins with the role, ends with the reason, and has the usage last if that is asked for."""
    stream = client.chat.completions.create(
        model="talker", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    pieces = list(stream)
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "You said: hello"
    assert pieces[-2].choices[0].finish_reason == "stop"
    assert pieces[-1].usage.total_tokens == 150
    assert len({piece.id for piece in pieces}) == 1


def test_cut_answer_says_length(client: Any) -> None:
    """An answer that was cut at its limit has the vendor's word for it."""
    answer = client.chat.completions.create(model="terse", messages=USER, max_completion_tokens=5)
    assert answer.choices[0].finish_reason == "length"


def test_refusal_is_an_answer(client: Any) -> None:
    """A model that declines gives a refusal, in one piece and streamed, not an error."""
    answer = client.chat.completions.create(model="refuser", messages=USER)
    assert answer.choices[0].finish_reason == "content_filter"
    assert "I will not" in (answer.choices[0].message.refusal or "")
    pieces = list(client.chat.completions.create(model="refuser", messages=USER, stream=True))
    assert "I will not" in "".join(piece.choices[0].delta.refusal or "" for piece in pieces)


@pytest.mark.parametrize("streams", [False, True])
def test_client_runs_its_tools(client: Any, streams: bool) -> None:
    """The model's calls come to the client, which answers them in its next request, and the model reads the answers."""
    messages: Any = [{"role": "user", "content": "How is it in Paris?"}]
    if streams:
        with client.chat.completions.stream(model="weather", messages=messages, tools=[WEATHER, TIME]) as stream:
            answer: Any = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(model="weather", messages=messages, tools=[WEATHER, TIME])
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Looking it up."
    called = [(made.function.name, json.loads(made.function.arguments)) for made in choice.message.tool_calls]
    assert called == [("get_weather", {"city": "Paris"}), ("get_time", {"zone": "CET"})]

    messages.append(choice.message.model_dump(exclude_none=True))
    for made, said in zip(choice.message.tool_calls, ("sunny", "noon"), strict=True):
        messages.append({"role": "tool", "tool_call_id": made.id, "content": said})
    final = client.chat.completions.create(model="answerer", messages=messages, tools=[WEATHER, TIME])
    assert final.choices[0].message.content == "The tools said: sunny\nnoon"


def test_result_and_journal_tell_of_the_calls(gateway_server: GatewayServer, client: Any) -> None:
    """The task of a run that ended with calls says so in its result: stop reason, calls, and the text beside them."""
    answer = client.chat.completions.create(model="weather", messages=USER, tools=[WEATHER, TIME])
    result = result_of(gateway_server, answer.id)
    assert result.ok
    assert result.stop_reason == "tool_use"
    assert result.output == "Looking it up."
    assert [made["name"] for made in result.tool_calls] == ["get_weather", "get_time"]
    [said] = gateway_server.do(lambda gateway: Handle(gateway.backend, result.task_id).messages())
    assert [part["type"] for part in said["parts"]] == ["text", "tool_call", "tool_call"]  # open, for the client


@pytest.mark.parametrize("streams", [False, True])
def test_calls_too_long_for_a_chunk(client: Any, streams: bool) -> None:
    """Arguments of any length arrive whole: those that no chunk takes are in the result."""
    if streams:
        with client.chat.completions.stream(model="lengthy", messages=USER, tools=[WEATHER]) as stream:
            answer = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(model="lengthy", messages=USER, tools=[WEATHER])
    [made] = answer.choices[0].message.tool_calls
    assert json.loads(made.function.arguments) == {"city": "Paris " * 60_000}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_one_call_at_a_time(client: Any) -> None:
    """`parallel_tool_calls: false` gives the client the first call alone, and the conversation goes on from it."""
    messages: Any = list(USER)
    answer = client.chat.completions.create(
        model="weather", messages=messages, tools=[WEATHER, TIME], parallel_tool_calls=False
    )
    [made] = answer.choices[0].message.tool_calls or []
    messages.append(answer.choices[0].message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": made.id, "content": "sunny"})
    final = client.chat.completions.create(model="answerer", messages=messages)
    assert final.choices[0].message.content == "The tools said: sunny"


def test_own_tools_run_in_the_fleet(client: Any) -> None:
    """What the agent's own tools do is not shown as calls; the text around them is, a paragraph each."""
    answer = client.chat.completions.create(model="shelf", messages=USER)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == "One moment.\n\nIt is shelf-a."
    pieces = list(client.chat.completions.create(model="shelf", messages=USER, stream=True))
    text = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    assert text == "One moment.\n\nIt is shelf-a."


def test_mixed_turn_keeps_what_own_tools_said(client: Any) -> None:
    """A run whose own tools were called before the client's: the next request has their outcomes, in order."""
    messages: Any = list(USER)
    answer = client.chat.completions.create(model="mixed", messages=messages, tools=[WEATHER])
    calls = answer.choices[0].message.tool_calls or []
    assert [json.loads(made.function.arguments)["city"] for made in calls] == ["Rome", "Oslo"]
    messages.append(answer.choices[0].message.model_dump(exclude_none=True))
    messages += [{"role": "tool", "tool_call_id": made.id, "content": f"sun-{n}"} for n, made in enumerate(calls)]
    final = client.chat.completions.create(model="answerer", messages=messages)
    assert final.choices[0].message.content == "The tools said: shelf-a\nshelf-b\nsun-0\nsun-1"


def test_another_caller_gets_nothing_of_a_run(gateway_server: GatewayServer, client: Any) -> None:
    """Who knows the id of somebody else's call learns nothing of that run: its own words are all that counts."""
    answer = client.chat.completions.create(model="mixed", messages=USER, tools=[WEATHER])
    message = answer.choices[0].message.model_dump(exclude_none=True)
    outcomes = [{"role": "tool", "tool_call_id": made["id"], "content": "x"} for made in message["tool_calls"]]
    stranger = gateway_server.make_key([Scope.AGENTS_USE])
    with openai_client(gateway_server, api_key=stranger) as other:
        final = other.chat.completions.create(model="answerer", messages=[*USER, message, *outcomes])
    assert final.choices[0].message.content == "The tools said: x\nx"


def test_a_name_that_the_agent_uses_is_refused(client: Any) -> None:
    """A client's tool cannot take the place of one of the agent's."""
    taken: Any = {"type": "function", "function": {"name": "look_up"}}
    with pytest.raises(openai.BadRequestError, match="the agent has a tool of that name"):
        client.chat.completions.create(model="mixed", messages=USER, tools=[taken])


def test_a_model_that_misspells_a_tool_is_told_of_the_clients(client: Any) -> None:
    """It may try again with the right name: those of the client are among what it is told of."""
    answer = client.chat.completions.create(model="guesser", messages=USER, tools=[WEATHER])
    said = answer.choices[0].message.content
    assert said.startswith('tool "get_wether" is not available')
    assert "get_weather" in said


def test_parsed_answer(client: Any) -> None:
    """The structured outputs helper gets JSON of the schema, also from a model that writes more than that."""
    for model in ("geographer", "fenced"):
        answer = client.chat.completions.parse(model=model, messages=USER, response_format=Weather)
        assert answer.choices[0].message.parsed == Weather(city="Paris", degrees=21)


def test_parsed_stream(client: Any) -> None:
    """The same for the streaming helper."""
    with client.chat.completions.stream(model="fenced", messages=USER, response_format=Weather) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == Weather(city="Paris", degrees=21)


def test_turn_that_starts_over_is_told_once(client: Any) -> None:
    """A provider's stream that breaks and comes again with the same words is one answer, also in a stream."""
    whole = client.chat.completions.create(model="restarter", messages=USER)
    assert whole.choices[0].message.content == "one two three four"
    pieces = list(client.chat.completions.create(model="restarter", messages=USER, stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "one two three four"


def test_system_prompt_images_and_history(client: Any) -> None:
    """Messages of all roles and kinds of content are taken."""
    picture = "data:image/png;base64,iVBORw0KGgo="
    answer = client.chat.completions.create(
        model="plain",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": picture}},
                ],
            },
        ],
        temperature=0.5,
        top_p=0.9,
        stop=["END"],
        reasoning_effort="low",
        seed=7,
        user="somebody",
        metadata={"order": "7"},
    )
    assert answer.choices[0].message.content == "You said: What is this?"


def test_what_cannot_be_served_is_refused(client: Any) -> None:
    """Parameters that would change the answer and are not supported are errors that name them."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="plain", messages=USER, n=2)
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
        client.chat.completions.create(model="plain", messages=USER, frequency_penalty=1)
    with pytest.raises(openai.BadRequestError, match="followed by tool messages"):
        client.chat.completions.create(
            model="plain",
            messages=[
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                *USER,
            ],
        )


def test_errors_are_the_clients_own(gateway_server: GatewayServer, client: Any) -> None:
    """Each kind of failure comes out as the exception class that the vendor's users expect."""
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=USER)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model="broke", messages=USER)
    assert too_long.value.code == "context_length_exceeded"
    with openai_client(gateway_server, api_key="wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.chat.completions.create(model="plain", messages=USER)
    without = gateway_server.make_key([Scope.TASKS_READ])
    with openai_client(gateway_server, api_key=without) as reader, pytest.raises(openai.PermissionDeniedError):
        reader.chat.completions.create(model="plain", messages=USER)


def test_failure_before_the_first_word_is_a_status(client: Any) -> None:
    """A stream that never began is an error like any other."""
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="broke", messages=USER, stream=True)


def test_same_idempotency_key_is_one_task(client: Any) -> None:
    """A request that is sent again with its key gets the answer of the first."""
    headers = {"Idempotency-Key": "order-7"}
    first, second = (
        client.chat.completions.create(model="plain", messages=USER, extra_headers=headers) for _ in range(2)
    )
    assert first.id == second.id
    other = client.chat.completions.create(model="plain", messages=USER, extra_headers={"Idempotency-Key": "order-8"})
    assert other.id != first.id


def test_idempotency_keys_are_their_callers_own(gateway_server: GatewayServer, client: Any) -> None:
    """The same key means nothing to another caller, and nothing in the vendor's other API."""
    headers = {"Idempotency-Key": "one and the same"}
    mine = client.chat.completions.create(model="plain", messages=USER, extra_headers=headers)
    other_key = gateway_server.make_key([Scope.AGENTS_USE])
    with openai_client(gateway_server, api_key=other_key) as other:
        theirs = other.chat.completions.create(model="plain", messages=USER, extra_headers=headers)
    response = client.responses.create(model="plain", input="hello", extra_headers=headers)
    ids = {answer.id.rpartition("chatcmpl-")[2].rpartition("resp_")[2] for answer in (mine, theirs, response)}
    assert len(ids) == 3


async def test_client_that_leaves_a_stream_ends_the_task(gateway_server: GatewayServer) -> None:
    """Closing a stream stops the spending."""
    async with async_openai_client(gateway_server) as client:
        stream = await client.chat.completions.create(model="slow", messages=USER, stream=True)
        piece = await anext(aiter(stream))
        await stream.close()
    assert result_of(gateway_server, piece.id).error == RUN_CANCELLED


async def test_client_that_gives_up_waiting_ends_the_task(gateway_server: GatewayServer) -> None:
    """A client that goes before the answer is there leaves nothing running."""
    async with async_openai_client(gateway_server) as client:
        asking = asyncio.create_task(client.chat.completions.create(model="silent", messages=USER))
        task_id = await running_task(gateway_server, "silent")
        asking.cancel()
        await asyncio.wait([asking])
    assert result_of(gateway_server, task_id).error == RUN_CANCELLED


async def test_request_with_a_key_goes_on_without_its_client(gateway_server: GatewayServer) -> None:
    """Who leaves and comes again with the same idempotency key meets the same run, which was not ended."""
    headers = {"Idempotency-Key": "come-back"}
    seen = set()
    async with async_openai_client(gateway_server) as client:
        for _ in range(2):
            stream = await client.chat.completions.create(
                model="slow", messages=USER, stream=True, extra_headers=headers
            )
            pieces = aiter(stream)
            said = [await anext(pieces), await anext(pieces)]
            assert said[1].choices[0].delta.content
            seen.add(said[0].id)
            await stream.close()
    [completion_id] = seen
    task_id = completion_id.removeprefix("chatcmpl-")
    assert [outcome.value for outcome in cancelled(gateway_server, task_id)] == ["requested"]
    assert result_of(gateway_server, completion_id).error == RUN_CANCELLED


async def test_async_client(gateway_server: GatewayServer) -> None:
    """The client for asyncio works as well."""
    async with async_openai_client(gateway_server) as client:
        answer = await client.chat.completions.create(model="plain", messages=USER)
    assert answer.choices[0].message.content == "You said: hello"
