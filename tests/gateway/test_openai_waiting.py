"""What clients of the vendors' APIs are told when nobody works, too much waits, or a gateway goes."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

import providers
from providers import AgentConfig
from queue_backends import (
    RUN_CANCELLED,
    BackendOptions,
    InvalidTask,
    Priority,
    QueueStats,
    ReplayTrimmed,
    Task,
    TaskNotFound,
    TaskState,
    TokenUsage,
)
from tests.gateway.gateway_harness import WITHIN_S, GatewayServer, gateway_settings
from tests.gateway.vendor_clients import AGENTS, anthropic_client, openai_client, scripted, turns
from worker.budgets.rules import BudgetRule
from worker.budgets.rules import Scope as BudgetScope
from worker.errors import AccessDenied, AgentNotFound
from worker.gateway.caller import Scope
from worker.gateway.context import Gateway
from worker.gateway.ingress.failures import meaning_of, problem_of_failure
from worker.gateway.ingress.narration import Failed
from worker.gateway.ingress.submission import deadline_of
from worker.gateway.problem import ErrorStyle, Problem
from worker.run_limits import Poisonous

USER: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def idle() -> Iterator[GatewayServer]:
    """A gateway without a worker, whose clients wait a moment, and whose queue takes two tasks."""
    settings = gateway_settings(
        agents=AGENTS, backend=BackendOptions(max_depth=2), gateway={"start_timeout_s": 0.2, "requests_per_minute": 0}
    )
    with GatewayServer(settings, with_worker=False) as server:
        yield server


def waiting(server: GatewayServer) -> QueueStats:
    """What is in the queue."""
    return server.do(lambda gateway: gateway.backend.queue.stats())


def test_no_worker(idle: GatewayServer) -> None:
    """A task that nobody takes is an error of the server's after a while, and does not stay behind."""
    with openai_client(idle, max_retries=0) as client:
        for streams in (False, True):
            with pytest.raises(openai.InternalServerError, match="no worker") as failed:
                client.chat.completions.create(model="plain", messages=USER, stream=streams)
            assert failed.value.status_code == 503
            assert failed.value.response.headers["retry-after"]
    with (
        anthropic_client(idle, max_retries=0) as other,
        pytest.raises(anthropic.InternalServerError, match="no worker"),
    ):
        other.messages.create(model="plain", max_tokens=9, messages=USER)
    assert waiting(idle).ready == 0


def test_request_with_a_key_stays_for_its_retry(idle: GatewayServer) -> None:
    """A client that sends the same key again meets the same task, however often: the work is not begun twice."""
    with openai_client(idle, max_retries=0) as client:
        headers = {"Idempotency-Key": "once"}
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="stays in the queue"):
                client.chat.completions.create(model="plain", messages=USER, extra_headers=headers)
    assert waiting(idle).ready == 1
    idle.do(_cancel_all)


def test_full_queue(idle: GatewayServer) -> None:
    """More than the queue takes is the vendors' rate limit error; background tasks wait in it."""
    with openai_client(idle, max_retries=0) as client:
        made = [client.responses.create(model="plain", input="x", background=True) for _ in range(2)]
        assert {response.status for response in made} == {"queued"}
        with pytest.raises(openai.RateLimitError):
            client.responses.create(model="plain", input="x", background=True)
        assert client.responses.retrieve(made[0].id).status == "queued"
        for response in made:
            assert client.responses.cancel(response.id).status == "cancelled"


async def waiting_tasks(gateway: Gateway) -> list[Task]:
    """The tasks in the queue."""
    found = await gateway.backend.queue.list_tasks(states=[TaskState.READY])
    return [status.task for status in found if status.task is not None]


def test_what_a_request_becomes(idle: GatewayServer) -> None:
    """The task has all that the request says: who, what, within which limits, and how urgent."""
    picture = "data:image/png;base64,iVBORw0KGgo="
    tool: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False}
    other: Any = {**tool, "name": "get_time"}
    with openai_client(idle, max_retries=0) as client:
        client.responses.create(
            model="plain",
            input=[
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": [{"type": "input_image", "image_url": picture, "detail": "low"}]},
                {"role": "assistant", "content": "I see."},
                {"role": "user", "content": "What is it?"},
            ],
            instructions="Be brief.",
            tools=[tool, other],
            tool_choice={"type": "function", "name": "get_weather"},
            reasoning={"effort": "high"},
            max_output_tokens=50,
            temperature=0.5,
            service_tier="priority",
            metadata={"order": "7"},
            user="somebody",
            background=True,
            extra_headers={"X-Shoal-Timeout-S": "60"},
        )
    [task] = idle.do(waiting_tasks)
    idle.do(_cancel_all)
    assert (task.agent, task.prompt, task.priority) == ("plain", "What is it?", Priority.HIGH)
    assert [message["role"] for message in task.history] == ["user", "assistant"]
    assert task.history[0]["parts"][0]["type"] == "image"
    assert task.meta == {"api": "responses", "user": "somebody", "metadata.order": "7"}
    assert task.deadline is not None
    assert task.overrides == {
        "client_tools": [{"name": "get_weather", "input_schema": {"type": "object"}}],
        "tool_choice": "required",
        "tools": [],
        "thinking": {"effort": "high"},
        "instructions": "Be brief.\n\nBe kind.",
        "max_tokens": 50,
        "temperature": 0.5,
    }


def test_urgency_is_for_who_may_submit_tasks(idle: GatewayServer) -> None:
    """A key that may only talk to agents does not push itself before the others; it may step behind them."""
    with openai_client(idle, api_key=idle.make_key([Scope.AGENTS_USE]), max_retries=0) as client:
        for tier in ("priority", "flex"):
            client.responses.create(model="plain", input=tier, service_tier=tier, background=True)
    tasks = {task.prompt: task.priority for task in idle.do(waiting_tasks)}
    idle.do(_cancel_all)
    assert tasks == {"priority": Priority.NORMAL, "flex": Priority.LOW}


def test_unfinished_response_cannot_be_continued(idle: GatewayServer) -> None:
    """There is nothing to continue before there is an answer."""
    with openai_client(idle, max_retries=0) as client:
        made = client.responses.create(model="plain", input="x", background=True)
        with pytest.raises(openai.BadRequestError, match="has not ended"):
            client.responses.create(model="plain", input="y", previous_response_id=made.id)
    idle.do(_cancel_all)


async def _cancel_all(gateway: Gateway) -> None:
    queue = gateway.backend.queue
    await queue.cancel([status.id for status in await queue.list_tasks(states=[TaskState.READY])])


def test_background_stream_outlives_its_gateway(queue_url: str) -> None:
    """A stream that was begun on one gateway is resumed on another, with the same events under the same numbers."""
    settings = gateway_settings(agents={"two": scripted(turns({"text": "one two three", "thinking": "Hm."}))})
    with GatewayServer(settings, queue_url=queue_url) as first:
        with openai_client(first) as client:
            stream = client.responses.create(model="two", input="x", background=True, stream=True)
            seen = [event.to_dict() for event in stream]
        key = first.admin_key
    later = GatewayServer(settings, queue_url=queue_url, with_worker=False)
    with later as second, openai_client(second, api_key=key) as client:
        response_id = seen[0]["response"]["id"]
        rest = list(client.responses.retrieve(str(response_id), stream=True, starting_after=4))
        whole = client.responses.retrieve(str(response_id))
    assert [event.to_dict() for event in rest] == seen[5:]
    assert whole.to_dict() == seen[-1]["response"]
    assert whole.output_text == "one two three"


def test_streams_that_the_gateway_ends_are_no_whole_answers(queue_url: str) -> None:
    """The clients take a stream that just stops for a whole answer: one that the gateway ends because it is stopped
    says so in the vendor's form, and a response under the number of its last event, so that resuming misses nothing."""
    settings = gateway_settings(agents={"slow": AGENTS["slow"]})
    stopped = GatewayServer(settings, queue_url=queue_url, with_worker=False)
    with GatewayServer(settings, queue_url=queue_url) as staying, stopped:
        with openai_client(stopped) as client, anthropic_client(stopped) as other:
            chat = client.chat.completions.create(model="slow", messages=USER, stream=True)
            response = client.responses.create(model="slow", input="hello", background=True, stream=True)
            message = other.messages.create(model="slow", max_tokens=99, messages=USER, stream=True)
            _, created, _ = [next(iter(stream)) for stream in (chat, response, message)]
            stopped.stop()
            with pytest.raises(openai.APIError, match="shutting down"):
                list(chat)
            *before, last = response
            assert (last.type, last.code) == ("error", "shutting_down")
            assert last.sequence_number == [created, *before][-1].sequence_number
            with pytest.raises(anthropic.APIStatusError, match="shutting down"):
                list(message)
        with openai_client(staying) as client:
            client.responses.cancel(created.response.id)


def test_budget_used_up() -> None:
    """What may not be spent any more is the vendors' error for it: in vectors, in answers and in streams."""
    budgets = {"tiny": BudgetRule(scope=BudgetScope.FLEET, tokens=1, name="tiny")}
    with GatewayServer(gateway_settings(agents=AGENTS, budgets=budgets)) as server:
        with openai_client(server) as client:
            text = "more than one token, which is all that there is"
            assert client.embeddings.create(model="plain", input=text).data  # the call that overshoots is the last
            with pytest.raises(openai.RateLimitError, match="tiny"):
                client.embeddings.create(model="plain", input=text)
            for streams in (False, True):
                with pytest.raises(openai.RateLimitError) as refused:
                    client.chat.completions.create(model="plain", messages=USER, stream=streams)
                assert (refused.value.code, refused.value.type) == ("insufficient_quota", "insufficient_quota")
        with anthropic_client(server) as other, pytest.raises(anthropic.APIStatusError) as unpaid:
            other.messages.create(model="plain", max_tokens=9, messages=USER)
        assert unpaid.value.status_code == 402


async def chunks_gone(gateway: Gateway, task_id: str) -> None:
    """Return when a task's stream is not kept any more."""
    with contextlib.suppress(TaskNotFound, ReplayTrimmed):
        while True:
            async for _ in gateway.backend.chunks.subscribe(task_id):
                continue


def test_response_outlives_its_chunks(queue_url: str) -> None:
    """When its stream is not kept any more, a response is read from its result."""
    settings = gateway_settings(
        agents={"two": AgentConfig(model="mock", provider="scripted")}, backend=BackendOptions(chunk_retention_s=0.001)
    )
    with GatewayServer(settings, queue_url=queue_url) as server, openai_client(server) as client:
        made = client.responses.create(model="two", input="x", background=True)
        task_id = made.id.removeprefix("resp_")
        server.do(lambda gateway: gateway.backend.queue.wait(task_id, WITHIN_S))
        server.do(lambda gateway: chunks_gone(gateway, task_id))
        found = client.responses.retrieve(made.id)
    assert (found.status, found.output_text) == ("completed", "mock response")


@pytest.mark.parametrize(
    ("failed", "openai_status", "openai_type", "anthropic_status", "anthropic_type"),
    [
        ("BudgetExceeded", 429, "insufficient_quota", 402, "billing_error"),
        ("RateLimited", 429, None, 429, None),
        ("Overloaded", 503, None, 529, "overloaded_error"),
        ("ContextTooLong", 400, None, 400, None),
        ("DeadlineExceeded", 504, None, 504, None),
        ("AgentNotFound", 404, None, 404, None),
        ("AuthenticationFailed", 502, None, 502, None),
        ("SomethingElse", 500, None, 500, None),
    ],
)
def test_failures_in_both_vendors_words(
    failed: str, openai_status: int, openai_type: str | None, anthropic_status: int, anthropic_type: str | None
) -> None:
    """What ends a run is told with the status and the type that the vendor's clients know, and without a retry."""
    failure = Failed(message="permanent failure: why", error_type=failed, usage=TokenUsage())
    theirs = problem_of_failure(failure, ErrorStyle.OPENAI)
    assert (theirs.status, theirs.extra.get("type"), theirs.detail) == (openai_status, openai_type, "why")
    assert theirs.headers["x-should-retry"] == "false"
    other = problem_of_failure(failure, ErrorStyle.ANTHROPIC)
    assert (other.status, other.extra.get("type")) == (anthropic_status, anthropic_type)


def families(*roots: type[Exception]) -> Iterator[type[Exception]]:
    """Classes and all that are made of them in the packages themselves."""
    for root in roots:
        if root.__module__.partition(".")[0] in ("providers", "queue_backends", "worker"):
            yield root
        yield from families(*root.__subclasses__())


def test_every_error_that_ends_a_run_has_a_meaning() -> None:
    """None of those that have a cause outside of the agent's code is told as a fault of the server."""
    for module in ("worker.agents.errors", "worker.routing.errors", "worker.agent_plugins.errors"):
        importlib.import_module(module)
    roots = (providers.ProviderError, InvalidTask, AccessDenied, AgentNotFound)
    known = {*families(*roots)} - {providers.Refused, Poisonous}  # an answer; a fault of ours
    assert len(known) > 20
    for error in known:
        assert meaning_of(Failed(message="why", error_type=error.__name__)).status != 500, error


def test_cancelled_run_is_a_conflict() -> None:
    """A run that somebody else cancelled is not asked for again by itself."""
    assert problem_of_failure(Failed(message=RUN_CANCELLED), ErrorStyle.OPENAI).status == 409


def test_deadline_of_a_request() -> None:
    """Seconds from now, as the vendors' clients say how long they wait; what is none is refused."""
    assert deadline_of("60") is not None
    assert deadline_of("", "600") is not None
    for wrong in ("soon", "-1", "nan", "1e12"):
        assert deadline_of("", wrong) is None  # what a client's own library says is no request of its user's
        with pytest.raises(Problem):
            deadline_of(wrong)
