"""Nobody outside makes a task the work of a team: the gateway refuses the marks."""

from __future__ import annotations

import asyncio

import pytest

from queue_backends import InvalidTask, Task
from queue_backends.messages import check_task
from tests.gateway.gateway_harness import GatewayServer
from worker.teams.marks import PLAN, RESERVED, ROLE, RUN, STEP, Marks, marks_of


def test_the_gateway_refuses_marks() -> None:
    """In tasks, in batches and in messages of sessions; the key of a run's step, too: whoever took it before the run
    did would answer for the step. A caller's own `run_name` is his affair."""
    with GatewayServer() as server:

        async def ask() -> tuple[list[int], int]:
            async with server.client() as client:
                opened = (await client.post("/v1/sessions", json={"agent": "default"})).json()
                session, chat = opened["session"]["id"], opened["conversations"][0]["id"]
                messages = f"/v1/sessions/{session}/conversations/{chat}/messages"
                statuses = []
                for name in sorted(RESERVED):
                    meta = {name: "x"}
                    answers = [
                        await client.post("/v1/tasks", json={"prompt": "hi", "meta": meta}),
                        await client.post("/v1/tasks/batch", json={"tasks": [{"prompt": "hi", "meta": meta}]}),
                        await client.post(messages, json={"content": "hi", "meta": meta}),
                    ]
                    statuses += [answer.status_code for answer in answers]
                stolen = {"prompt": "hi", "idempotency_key": "team:newsroom-1:write:1:1:step"}
                answers = [
                    await client.post("/v1/tasks", json=stolen),
                    await client.post("/v1/tasks/batch", json={"tasks": [stolen]}),
                    await client.post(
                        "/v1/tasks", json={"prompt": "hi"}, headers={"Idempotency-Key": stolen["idempotency_key"]}
                    ),
                ]
                statuses += [answer.status_code for answer in answers]
                own = await client.post("/v1/tasks", json={"prompt": "hi", "meta": {RUN: "mine", STEP: "one"}})
            return statuses, own.status_code

        statuses, own = asyncio.run(ask())

    assert set(statuses) == {422}
    assert own in (200, 201, 202)


def test_marks_travel_in_meta_and_come_back() -> None:
    """Whatever there is of them; what is not a team's has none."""
    marks = Marks(run="r", step="s", plan="p", team="t", role="w", parent="1-0", depth=2, purpose="delegated")

    assert marks_of(marks.meta()) == marks
    assert marks_of({PLAN: "p"}) is None
    assert marks_of({ROLE: "w"}) is None
    assert marks_of({}) is None


@pytest.mark.parametrize("depth", ["x", "-1", "", "²", "9" * 5000])
def test_a_depth_that_is_no_number_counts_as_none(depth: str) -> None:
    """Garbage in a queue is no crash: whoever pulls it reads this before anything else of it."""
    found = marks_of({PLAN: "p", ROLE: "w", "team_depth": depth})

    assert found is not None
    assert found.depth == 0


def test_marks_are_names_that_meta_may_have() -> None:
    """None of them is a field of a task."""
    check_task(Task(prompt="x", meta=dict.fromkeys(RESERVED, "x")))
    with pytest.raises(InvalidTask):
        check_task(Task(prompt="x", meta={"tenant": "x"}))
