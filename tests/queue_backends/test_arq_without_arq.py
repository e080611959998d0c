"""What there is of the arq backend where arq is not installed: its serializers, and a clear word."""

from __future__ import annotations

import asyncio
import copy
import pickle
import sys
from typing import Any

import msgspec
import pytest

from queue_backends import BackendMisconfigured, BackendOptions, Task, TaskResult, TokenUsage
from queue_backends.arq import Answer, TaskFailed, UnreadableJob, deserializer, open_backend, serializer
from queue_backends.redis.wire import encode_result

JOB = {"t": None, "f": "run_task", "a": ("hello",), "k": {"tenant": "acme"}, "et": 1_775_325_495_000}


def stored(*, success: bool, result: object, **more: object) -> bytes:
    """A result as it stands in Redis."""
    return msgspec.json.encode({**JOB, "t": 1, "s": success, "r": result, "id": "j", **more})


async def test_without_arq_the_backend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening the URL is one line that names the extra, and no import error."""
    for name in [name for name in sys.modules if name == "arq" or name.startswith(("arq.", "queue_backends.arq."))]:
        if name != "queue_backends.arq.serializing":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "arq", None)
    with pytest.raises(BackendMisconfigured, match=r"pip install 'shoal\[arq\]'"):
        await open_backend("arq+redis://127.0.0.1:1", BackendOptions())


def test_a_job_survives() -> None:
    """A job comes out as it went in, its arguments as the tuple that arq hands on."""
    assert deserializer(serializer(JOB)) == JOB


def test_arguments_may_be_values_of_python() -> None:
    """What JSON can say in some way is accepted, a whole task too; anything else is a TypeError, not a surprise."""
    job = {**JOB, "a": (Task(prompt="hello", tenant="acme"),)}
    assert deserializer(serializer(job))["a"] == ({"prompt": "hello", "tenant": "acme"},)
    with pytest.raises(TypeError):
        serializer({**JOB, "a": (object(),)})


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_refused_unread(protocol: int) -> None:
    """A pickle is known by its first byte; the reason says what to do."""
    with pytest.raises(UnreadableJob, match=r"pickle.*job_serializer=queue_backends\.arq\.serializer"):
        deserializer(pickle.dumps(JOB, protocol))


@pytest.mark.parametrize("data", [b"", b"(dp0\n.", b"[1]", b"1", b'{"f": "\xff"}'])
def test_what_is_no_job_is_refused(data: bytes) -> None:
    """Old pickles, other JSON, broken text."""
    with pytest.raises(UnreadableJob, match="JSON"):
        deserializer(data)


def test_an_answer_is_a_text_with_its_result() -> None:
    """The result of a success is the text; usage and cost are beside it."""
    result = TaskResult(task_id="j", usage=TokenUsage(input_tokens=7, output_tokens=3), cost_usd=0.5, finished_at=1.5)
    data = stored(success=True, result="hi", shoal=msgspec.Raw(encode_result(result).encode()))
    answer = deserializer(data)["r"]
    assert isinstance(answer, Answer)
    assert answer == "hi"
    assert answer.task_result == msgspec.structs.replace(result, output="hi")
    assert copy.deepcopy(answer).task_result == answer.task_result
    assert deserializer(serializer({**JOB, "a": (answer,)}))["a"] == ("hi",)


def test_a_failure_is_an_exception() -> None:
    """The result of a failure is what arq's client raises."""
    result = TaskResult(task_id="j", error="broken", output="half", finished_at=1.5)
    data = stored(success=False, result="broken", e="TaskFailed", shoal=msgspec.Raw(encode_result(result).encode()))
    failure = deserializer(data)["r"]
    assert isinstance(failure, TaskFailed)
    assert (str(failure), failure.task_result) == ("broken", result)
    cancelled = deserializer(stored(success=False, result="run cancelled", e="CancelledError"))["r"]
    assert isinstance(cancelled, asyncio.CancelledError)


@pytest.mark.parametrize(
    ("raised", "kind", "said"), [(ValueError("no"), "ValueError", "no"), (KeyError(), "KeyError", "KeyError")]
)
def test_an_exception_of_arqs_own_workers_survives_as_its_text(raised: Exception, kind: str, said: str) -> None:
    """A worker of arq's own that uses the serializer stores exceptions; nothing is made from a type's name."""
    data = serializer({**JOB, "t": 1, "s": False, "r": raised, "id": "j"})
    failure = deserializer(data)["r"]
    assert isinstance(failure, TaskFailed)
    assert (str(failure), failure.kind, failure.task_result) == (said, kind, None)


@pytest.mark.parametrize("value", ["text", None, 3, {"a": [1]}])
def test_other_results_of_arqs_own_workers_come_as_they_are(value: Any) -> None:
    """What a function of an engine's own returned is what its client gets."""
    assert deserializer(serializer({**JOB, "t": 1, "s": True, "r": value, "id": "j"}))["r"] == value
