"""What an engine may put into the queue that no worker of Shoal's can run: refused with a reason, and nothing stops."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from arq import ArqRedis, create_pool
from arq.connections import RedisSettings
from arq.jobs import DeserializationError
from arq_fleets import LIMIT_S

from queue_backends import Backend, Task, TaskResult
from queue_backends.arq import TaskFailed
from tests.servers import Server

ran: list[str] = []


class Trap:
    """A pickle that does something when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ran.append, ("the pickle was read",)


async def test_a_pickled_job_is_never_read(valkey_server: Server, backend: Backend, arq_queue: str) -> None:
    """A job of a pool with arq's defaults goes to the dead letters with what to do about it; its code does not run."""
    pool = await create_pool(RedisSettings.from_dsn(valkey_server.url()), default_queue_name=arq_queue)
    job = await pool.enqueue_job("run_task", Trap())
    assert job is not None
    task_id = await backend.queue.submit(Task(prompt="good"))
    assert [delivery.task.id for delivery in await backend.queue.pull(5, LIMIT_S)] == [task_id]
    (letter,) = await backend.queue.dead_letters()
    assert letter.task_id == job.job_id
    assert "pickle" in letter.error
    assert "job_serializer=queue_backends.arq.serializer" in letter.error
    assert ran == []
    with pytest.raises(DeserializationError):  # arq's default pool expects a pickle, and gets none from us
        await job.result(timeout=LIMIT_S)
    (result,) = await backend.queue.results([job.job_id])
    assert result is not None
    assert result.error == letter.error
    await pool.aclose()


async def test_a_pickled_result_is_never_read(pool: ArqRedis, backend: Backend) -> None:
    """A result that a worker with arq's defaults has stored says that it cannot be read."""
    await pool.set("arq:result:foreign", pickle.dumps({"s": True, "r": Trap()}), px=60_000)
    (result,) = await backend.queue.results(["foreign"])
    await pool.delete("arq:result:foreign")
    assert result is not None
    assert "pickle" in result.error
    assert ran == []


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "words"),
    [
        ("send_mail", ("a",), {}, ("function 'send_mail' not found", "run_task")),
        ("run_task", (), {}, ("prompt",)),
        ("run_task", ("a", "b"), {}, ("one positional argument", "2")),
        ("run_task", ("a",), {"prompt": "b"}, ("'prompt'", "twice")),
        ("run_task", ({"note": "x"},), {}, ("prompt",)),
        ("run_task", ("a",), {"meta": ["x"]}, ("'meta'", "list")),
        ("run_task", ("a",), {"meta": {"agent": "x"}}, ("'agent'", "field of the task")),
        ("run_task", ("a",), {"history": {"role": "user"}}, ("'history'", "JSON")),
        ("run_task", ("a",), {"deadline": "soon"}, ("'deadline'", "soon")),
        ("run_task", ("a",), {"priority": 1}, ("'priority'", "'high'")),
    ],
)
async def test_a_job_that_cannot_run_is_a_dead_letter(
    pool: ArqRedis, backend: Backend, function: str, args: tuple[object, ...], kwargs: dict[str, Any], words: list[str]
) -> None:
    """The reason is in the letter, and arq's client raises it; the jobs around it are delivered."""
    job = await pool.enqueue_job(function, *args, **kwargs)
    assert job is not None
    task_id = await backend.queue.submit(Task(prompt="good"))
    assert [delivery.task.id for delivery in await backend.queue.pull(5, LIMIT_S)] == [task_id]
    (letter,) = await backend.queue.dead_letters()
    assert [word for word in words if word not in letter.error] == []
    with pytest.raises(TaskFailed) as caught:
        await job.result(timeout=LIMIT_S)
    assert str(caught.value) == letter.error
    info = await job.result_info()
    assert info is not None
    assert (info.function, info.args) == (function, args)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ("JSON",)),
        (b"hello", ("JSON",)),
        (b"[1]", ("list",)),
        (b'{"f":"run_task"}', ("'a'",)),
        (b'{"f":1,"a":[],"k":{},"t":null,"et":1}', ("'f'",)),
        (b'{"f":"run_task","a":[],"k":[],"t":null,"et":1}', ("'k'",)),
        (b'{"f":"run_task","a":' + b"[" * 100_000 + b"]" * 100_000 + b',"k":{},"t":null,"et":1}', ("JSON",)),
    ],
    ids=["nothing", "no JSON", "no object", "incomplete", "no name", "no arguments", "nested"],
)
async def test_garbage_is_a_dead_letter(
    pool: ArqRedis, backend: Backend, arq_queue: str, data: bytes, words: list[str]
) -> None:
    """Bytes that are no job of anybody's end as a letter with the reason, and leave nothing behind."""
    job_id = f"garbage-{arq_queue}"
    await pool.set(f"arq:job:{job_id}", data, px=60_000)
    await pool.zadd(arq_queue, {job_id: 1})
    assert await backend.queue.pull(5, 0) == []
    (letter,) = await backend.queue.dead_letters()
    assert letter.task_id == job_id
    assert [word for word in words if word not in letter.error] == []
    left = {f"arq:result:{job_id}".encode(), f"{arq_queue}:chunks:{job_id}".encode()}
    assert set(await pool.keys(f"*{job_id}*")) == left
    assert await pool.zcard(arq_queue) == 0


@pytest.mark.parametrize("job_try", ["x", -1, 2.5, 10**30])
async def test_a_count_of_tries_that_is_none_counts_from_one(pool: ArqRedis, backend: Backend, job_try: Any) -> None:
    """A `_job_try` that is no number of tries is as if the engine had not said."""
    await pool.enqueue_job("run_task", "hello", _job_try=job_try)
    (delivery,) = await backend.queue.pull(1, LIMIT_S)
    assert delivery.task.attempt == 0
    await backend.queue.ack(delivery, TaskResult(task_id=delivery.task.id))
