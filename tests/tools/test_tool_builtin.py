"""`submit_subtask`, with ark's texts."""

from __future__ import annotations

from queue_backends import BackendUnavailable, Task
from tests.tools.tool_servers import call
from worker.tools import ToolContext
from worker.tools.builtin import SubmitSubtask
from worker.tools.catalogue import ToolCatalogue


class Queue:
    """Takes tasks as a queue does."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tasks: list[Task] = []
        self.error = error

    async def submit(self, task: Task) -> str:
        if self.error is not None:
            raise self.error
        self.tasks.append(task)
        return f"{len(self.tasks)}-0"


CATALOGUE = ToolCatalogue(tools=[SubmitSubtask()])


async def test_a_subtask_is_submitted_for_the_same_tenant_and_agent() -> None:
    """The model gets the id; the new task is on the same tenant's account, and within what its agent may."""
    queue = Queue()
    context = ToolContext(task_id="1-0", agent="digger", tenant="acme", submit=queue.submit)

    outcome = await call(CATALOGUE, "submit_subtask", '{"prompt": "Dig."}', context)

    assert outcome.content == "subtask submitted with id: 1-0"
    assert (queue.tasks[0].prompt, queue.tasks[0].tenant, queue.tasks[0].agent) == ("Dig.", "acme", "digger")


async def test_the_same_call_again_has_the_same_key() -> None:
    """A call repeated after a crash adds no second task; another prompt does."""
    queue = Queue()
    context = ToolContext(task_id="1-0", submit=queue.submit)

    for prompt in ("Dig.", "Dig.", "Fill."):
        await call(CATALOGUE, "submit_subtask", f'{{"prompt": "{prompt}"}}', context)

    keys = [task.idempotency_key for task in queue.tasks]
    assert keys[0] == keys[1] != keys[2]
    assert keys[0].startswith("1-0:call-1:")


async def test_arks_errors() -> None:
    """An empty prompt, a queue that refuses, and no queue at all."""
    down = Queue(BackendUnavailable("XADD agent-tasks: connection refused"))

    empty = await call(CATALOGUE, "submit_subtask", '{"prompt": " "}', ToolContext(submit=down.submit))
    refused = await call(CATALOGUE, "submit_subtask", '{"prompt": "x"}', ToolContext(submit=down.submit))
    nowhere = await call(CATALOGUE, "submit_subtask", '{"prompt": "x"}')

    assert empty.content == "submit_subtask: prompt must not be empty"
    assert refused.content == "submit_subtask: submitting task: XADD agent-tasks: connection refused"
    assert nowhere.content == "submit_subtask: there is no task queue in this run"
    assert empty.is_error
    assert refused.is_error
    assert nowhere.is_error
