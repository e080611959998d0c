"""Responses with OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from pydantic import BaseModel

from providers import Message, ToolOutcome
from queue_backends import RUN_CANCELLED
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.vendor_clients import AGENTS, async_openai_client, openai_client
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.openai_api.response_store import PREFIX, ResponseRecord
from worker.settings import Settings

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
TIME: Any = {"type": "function", "name": "get_time", "parameters": {"type": "object"}, "strict": False}


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


def ended(server: GatewayServer, response_id: str) -> None:
    """Return once the task of a response has ended."""
    task_id = response_id.removeprefix("resp_")
    server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))


def numbered(events: list[Any]) -> list[tuple[int, str]]:
    """Which events, in order."""
    return [(event.sequence_number, event.type) for event in events]


def test_answer_in_one_piece(client: Any) -> None:
    """A response has the reasoning and the text as items, the usage with details, and says again what was asked for."""
    answer = client.responses.create(
        model="talker", input="hello", instructions="Be brief.", metadata={"order": "7"}, max_output_tokens=100
    )
    assert answer.status == "completed"
    assert answer.output_text == "You said: hello"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].summary[0].text == "Let me see."
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (120, 30, 150)
    assert answer.usage.input_tokens_details.cached_tokens == 100
    assert answer.usage.output_tokens_details.reasoning_tokens == 10
    assert (answer.model, answer.instructions, answer.metadata) == ("talker", "Be brief.", {"order": "7"})
    assert answer.max_output_tokens == 100


def test_stream_has_the_vendors_events(client: Any) -> None:
    """Every item is opened, told and closed, in the vendor's order, under numbers without a gap."""
    events = list(client.responses.create(model="talker", input="hello", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    told = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]
    assert told == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_stream_helper(client: Any) -> None:
    """The client's own accumulation comes to the same response."""
    with client.responses.stream(model="talker", input="hello") as stream:
        for _ in stream:
            continue
        final = stream.get_final_response()
    assert final.output_text == "You said: hello"


def test_parsed_answers(client: Any) -> None:
    """The structured outputs helper, in one piece and streamed."""
    answer = client.responses.parse(model="fenced", input="Where?", text_format=Weather)
    assert answer.output_parsed == Weather(city="Paris", degrees=21)
    with client.responses.stream(model="geographer", input="Where?", text_format=Weather) as stream:
        assert stream.get_final_response().output_parsed == Weather(city="Paris", degrees=21)


@pytest.mark.parametrize("is_stored", [True, False])
def test_client_runs_its_tools(client: Any, is_stored: bool) -> None:
    """The model's calls are items; their outputs continue the stored response, or the items that the client kept."""
    first = client.responses.create(model="mixed", input="How is it?", tools=[WEATHER], store=is_stored)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [json.loads(made.arguments)["city"] for made in calls] == ["Rome", "Oslo"]
    outputs: Any = [
        {"type": "function_call_output", "call_id": made.call_id, "output": f"sun-{n}"} for n, made in enumerate(calls)
    ]
    if is_stored:
        final = client.responses.create(model="answerer", previous_response_id=first.id, input=outputs)
    else:
        kept: Any = [{"role": "user", "content": "How is it?"}, *first.output]
        final = client.responses.create(model="answerer", input=[*kept, *outputs], store=False)
    assert final.output_text == "The tools said: shelf-a\nshelf-b\nsun-0\nsun-1"


def test_every_call_that_is_continued_has_one_outcome(gateway_server: GatewayServer, client: Any) -> None:
    """What a run is given to go on with is a conversation that vendors take: calls that the client was not shown are
    not in it, and outcomes of own tools and of the client's stand in one message, right after the calls."""
    first = client.responses.create(model="mixed", input="hello", tools=[WEATHER], parallel_tool_calls=False)
    [made] = [item for item in first.output if item.type == "function_call"]
    outcome: Any = [{"type": "function_call_output", "call_id": made.call_id, "output": "sun"}]
    second = client.responses.create(model="answerer", input=outcome, previous_response_id=first.id)
    assert second.output_text == "The tools said: shelf-a\nshelf-b\nsun"

    async def given(gateway: Gateway) -> list[Message]:
        raw = await gateway.backend.state.get(PREFIX + second.id.removeprefix("resp_"))
        record = msgspec.json.decode(raw or b"", type=ResponseRecord)
        return [msgspec.convert(message, Message) for message in record.messages]

    messages = gateway_server.do(given)
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant", "user"]
    for asking, answering in pairwise(messages):
        outcomes = [part.call_id for part in answering.parts if isinstance(part, ToolOutcome)]
        assert sorted(call.id for call in asking.tool_calls) == sorted(outcomes)


@pytest.mark.parametrize(("position", "city"), [(0, "Lima"), (9, "Rome")])
def test_calls_that_nobody_made_bring_nothing_along(client: Any, position: int, city: str) -> None:
    """A client that changes what it was asked for, or invents a call, is taken at its word: of the run that the id
    names, nothing is added."""
    first = client.responses.create(model="mixed", input="hello", tools=[WEATHER], parallel_tool_calls=False)
    [made] = [item for item in first.output if item.type == "function_call"]
    assert json.loads(made.arguments) == {"city": "Rome"}
    identifier = f"{made.call_id.rpartition('_')[0]}_{position}"
    items: Any = [
        {"role": "user", "content": "hello"},
        {"type": "function_call", "call_id": identifier, "name": made.name, "arguments": json.dumps({"city": city})},
        {"type": "function_call_output", "call_id": identifier, "output": "sun"},
    ]
    assert client.responses.create(model="answerer", input=items).output_text == "The tools said: sun"


def test_streamed_calls(client: Any) -> None:
    """The client's accumulation has the calls with their arguments."""
    with client.responses.stream(model="weather", input="Paris?", tools=[WEATHER, TIME]) as stream:
        final = stream.get_final_response()
    assert [item.name for item in final.output if item.type == "function_call"] == ["get_weather", "get_time"]


def test_conversation_goes_on_from_any_response(client: Any) -> None:
    """Two requests continue the same response, each on its own; what the agent's own tools said is remembered."""
    first = client.responses.create(model="shelf", input="What is there?")
    assert first.output_text == "One moment.It is shelf-a."
    one, other = (
        client.responses.create(model="answerer", previous_response_id=first.id, input=text) for text in ("A", "B")
    )
    assert one.output_text == other.output_text == "The tools said: shelf-a"
    third = client.responses.create(model="plain", previous_response_id=one.id, input="Bye")
    assert third.output_text == "You said: Bye"
    assert third.previous_response_id == one.id


def test_stored_response_is_read_and_deleted(client: Any) -> None:
    """A response can be asked for until it is deleted, and its input with it."""
    made = client.responses.create(
        model="talker", input=[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]
    )
    found = client.responses.retrieve(made.id)
    assert found.to_dict() == made.to_dict()
    items = list(client.responses.input_items.list(made.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["one", "two"]
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_response_that_is_not_stored(client: Any) -> None:
    """With `store: false` nothing is kept."""
    made = client.responses.create(model="plain", input="hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_responses_are_their_callers_own(gateway_server: GatewayServer, client: Any) -> None:
    """Another key finds nothing under the id, whatever it does with it."""
    made = client.responses.create(model="plain", input="secret", background=True)
    stranger = gateway_server.make_key([Scope.AGENTS_USE])
    with openai_client(gateway_server, api_key=stranger) as other:
        responses: Any = other.responses
        for attempt in (responses.retrieve, responses.cancel, responses.delete, responses.input_items.list):
            with pytest.raises(openai.NotFoundError):
                attempt(made.id)
        with pytest.raises(openai.NotFoundError):
            responses.create(model="plain", input="x", previous_response_id=made.id)


def test_responses_belong_to_a_tenant(gateway_server: GatewayServer) -> None:
    """What one key of a tenant has made, another one of it finds, and no other tenant's does."""
    use = [Scope.AGENTS_USE]
    acme, also_acme, umbrella = (gateway_server.make_key(use, tenant=name) for name in ("acme", "acme", "umbrella"))
    with openai_client(gateway_server, api_key=acme) as client:
        made = client.responses.create(model="plain", input="x")
    with openai_client(gateway_server, api_key=also_acme) as client:
        assert client.responses.retrieve(made.id).output_text == "You said: x"
    with openai_client(gateway_server, api_key=umbrella) as client, pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_background_response(gateway_server: GatewayServer, client: Any) -> None:
    """A background response is there at once, and whole when its task has ended."""
    made = client.responses.create(model="talker", input="hello", background=True)
    assert made.status == "queued"
    ended(gateway_server, made.id)
    found = client.responses.retrieve(made.id)
    assert (found.status, found.output_text, found.background) == ("completed", "You said: hello", True)


def test_background_stream_is_resumed(client: Any) -> None:
    """A stream that broke off goes on after any event, and all together are the events of an unbroken one."""
    first = []
    with client.responses.create(model="talker", input="hello", background=True, stream=True) as stream:
        for event in stream:
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    rest = list(client.responses.retrieve(first[0].response.id, stream=True, starting_after=first[-1].sequence_number))
    again = list(client.responses.retrieve(first[0].response.id, stream=True))
    assert [event.to_dict() for event in [*first, *rest]] == [event.to_dict() for event in again]
    assert again[-1].type == "response.completed"


def test_background_response_is_cancelled(gateway_server: GatewayServer, client: Any) -> None:
    """Cancelling ends the task; only background responses can be cancelled."""
    made = client.responses.create(model="silent", input="hello", background=True)
    assert client.responses.cancel(made.id).status == "cancelled"
    assert client.responses.retrieve(made.id).status == "cancelled"
    [*_, last] = client.responses.retrieve(made.id, stream=True)
    assert (last.type, last.response.status) == ("response.failed", "cancelled")
    with pytest.raises(openai.BadRequestError, match="background"):
        client.responses.cancel(client.responses.create(model="plain", input="x").id)


def test_deleted_response_ends_its_run(gateway_server: GatewayServer, client: Any) -> None:
    """Nothing more is spent on what nobody can ask for any longer."""
    answer = client.responses.create(model="slow", input="hello", background=True)
    client.responses.delete(answer.id)
    task_id = answer.id.removeprefix("resp_")
    result = gateway_server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))
    assert result.error == RUN_CANCELLED


def test_background_failure(gateway_server: GatewayServer, client: Any) -> None:
    """A run that failed is a response that says so; a client that waits gets the error."""
    made = client.responses.create(model="broke", input="hello", background=True)
    ended(gateway_server, made.id)
    found = client.responses.retrieve(made.id)
    assert found.status == "failed"
    assert found.error is not None
    assert "too many tokens" in found.error.message
    with pytest.raises(openai.BadRequestError) as failed:
        client.responses.create(model="broke", input="hello")
    assert failed.value.code == "context_length_exceeded"


def test_cut_answer_is_incomplete(client: Any) -> None:
    """An answer that was cut at its limit has the vendor's status and reason."""
    answer = client.responses.create(model="terse", input="hello")
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"


def test_instructions_alone_are_what_is_said(client: Any) -> None:
    """A system or developer message without another is answered, in both of the vendor's forms."""
    developer: Any = [{"role": "developer", "content": "Greet."}]
    first = client.responses.create(model="plain", input=developer)
    assert first.output_text == "You said: Greet."
    second = client.responses.create(model="plain", input=developer, previous_response_id=first.id)
    assert second.output_text == "You said: Greet."
    chat = client.chat.completions.create(model="plain", messages=[{"role": "system", "content": "Greet."}])
    assert chat.choices[0].message.content == "You said: Greet."


def test_refusal(client: Any) -> None:
    """A model that declines gives a refusal."""
    answer = client.responses.create(model="refuser", input="hello")
    assert answer.output[0].content[0].type == "refusal"


def test_what_cannot_be_served_is_refused(client: Any) -> None:
    """Parameters and items that are not supported are errors that name them."""
    for given in (
        {"tools": [{"type": "web_search"}]},
        {"truncation": "auto"},
        {"input": [{"type": "computer_call_output"}]},
        {"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
        {"background": True, "store": False},
        {"input": ""},
    ):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(**{"model": "plain", "input": "hello", **given})
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="plain", input="x", previous_response_id="resp_nothing")


async def test_async_client(gateway_server: GatewayServer) -> None:
    """The client for asyncio works as well."""
    async with (
        async_openai_client(gateway_server) as client,
        client.responses.stream(model="plain", input="hello") as stream,
    ):
        final = await stream.get_final_response()
    assert final.output_text == "You said: hello"
