"""Reading results for many who wait at once: those whose tasks ended together are answered by one query."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from queue_backends.errors import BackendUnavailable, QueueError
from queue_backends.messages import TaskResult
from queue_backends.postgresql.inspection import Inspector

AT_ONCE = 100


class ResultReader:
    """Reads for one process."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._wanted: dict[str, asyncio.Future[TaskResult | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def read(self, task_id: str) -> TaskResult | None:
        """The result as it is after this call began; None if there is none."""
        answer = self._wanted.get(task_id)
        if answer is None:
            answer = self._wanted[task_id] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_all(), name="results")
        return await asyncio.shield(answer)

    async def _read_all(self) -> None:
        while self._wanted:
            ids = list(self._wanted)[:AT_ONCE]
            answers = {task_id: self._wanted.pop(task_id) for task_id in ids}
            try:
                results: Sequence[TaskResult | None] = await self._inspector.results(ids)
            except QueueError as error:
                for answer in answers.values():
                    answer.set_exception(type(error)(str(error)))
            except BaseException:
                _give_up(answers.values())
                raise
            else:
                for answer, result in zip(answers.values(), results, strict=True):
                    answer.set_result(result)

    async def close(self) -> None:
        """Read no more; whoever waits here gets `BackendUnavailable`."""
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        wanted, self._wanted = self._wanted, {}
        _give_up(wanted.values())


def _give_up(answers: Iterable[asyncio.Future[TaskResult | None]]) -> None:
    for answer in answers:
        answer.set_exception(BackendUnavailable("the backend was closed while somebody waited for a result"))
