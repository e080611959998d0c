"""A key stands for one content, whoever else uses it at the same moment, and a whole batch can be sent again."""

from __future__ import annotations

from queue_backends import BackendOptions, Task
from tests.gateway.gateway_harness import GatewayServer, gateway_settings
from worker.gateway.idempotency import reserve

LATER_S = 86_400.0


async def test_who_is_second_is_refused_before_anything_is_submitted(gateway_server: GatewayServer) -> None:
    """Another gateway has taken the key for another content, and is about to submit it: it is not told of that task as
    if it were its own, and does not take the key away."""
    other = Task(prompt="the other one", idempotency_key="k")
    gateway_server.do(lambda gateway: reserve(gateway.backend.state, other, keep_s=60.0))
    async with gateway_server.client() as client:
        refused = await client.post("/v1/tasks", json={"prompt": "mine", "idempotency_key": "k", "delay_s": LATER_S})
        tasks = (await client.get("/v1/tasks?state=delayed")).json()["tasks"]
        taken = await client.post("/v1/tasks", json={"prompt": "the other one", "idempotency_key": "k"})

    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    assert tasks == []
    assert taken.status_code == 202


async def test_a_key_of_a_refused_batch_is_free_again(gateway_server: GatewayServer) -> None:
    """None was taken, so its keys stand for nothing; those that stood for something before still do."""
    async with gateway_server.client() as client:
        first = {"prompt": "first", "idempotency_key": "b0", "delay_s": LATER_S}
        assert (await client.post("/v1/tasks", json=first)).status_code == 202
        tasks = [{"prompt": "x", "idempotency_key": "b1"}, {"prompt": "y", "idempotency_key": "b0"}]
        refused = await client.post("/v1/tasks/batch", json={"tasks": tasks})
        free = await client.post("/v1/tasks", json={"prompt": "another", "idempotency_key": "b1"})
        again = await client.post("/v1/tasks", json=first)

    assert refused.status_code == 422
    assert [error["index"] for error in refused.json()["errors"]] == [1]
    assert free.status_code == 202
    assert again.headers["idempotent-replayed"] == "true"


async def test_a_batch_with_a_key_can_be_sent_again(gateway_server: GatewayServer) -> None:
    """The same tasks are given, and none is added; another batch under the same key is refused."""
    body = {"tasks": [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "c", "idempotency_key": "own"}], "delay_s": LATER_S}
    async with gateway_server.client(headers={"Idempotency-Key": "batch 1"}) as client:
        first, second = [(await client.post("/v1/tasks/batch", json=body)).json()["tasks"] for _ in range(2)]
        changed = await client.post("/v1/tasks/batch", json={"tasks": [{"prompt": "b"}], "delay_s": LATER_S})

    assert len({task["id"] for task in first}) == 3
    assert [task["id"] for task in second] == [task["id"] for task in first]
    assert [task.get("is_repeated", False) for task in (*first, *second)] == [False] * 3 + [True] * 3
    assert changed.status_code == 422


async def test_a_full_queue_keeps_no_key() -> None:
    """What was not taken does not stand in the way of something else."""
    settings = gateway_settings(backend=BackendOptions(max_depth=1))
    with GatewayServer(settings, with_worker=False) as server:
        async with server.client() as client:
            answers = [
                await client.post("/v1/tasks", json={"prompt": prompt, "idempotency_key": key})
                for prompt, key in (("a", "k1"), ("b", "k2"), ("c", "k2"))
            ]
    assert [answer.status_code for answer in answers] == [202, 429, 429]
