"""Entries that cannot be tasks: to the dead letters with the reason, and the loop goes on."""
# ruff: noqa: S101 - tests speak in asserts

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import ClassVar

import pytest

from queue_backends.conformance.support import (
    PATIENCE_S,
    Conformance,
    InjectRaw,
    OpenBackend,
    all_chunks,
    background,
    eventually,
    pull_nothing,
    pull_one,
    pull_some,
    submit,
    within,
)
from queue_backends.interfaces import BackendOptions, TaskState
from queue_backends.messages import ChunkType

_NESTED = b"[" * 100_000 + b"]" * 100_000
_LONG = b"9" * 5000

_UNREADABLE: Mapping[str, tuple[Mapping[str, bytes], tuple[str, ...]]] = {
    "not UTF-8": ({"prompt": b"\xff\xfe"}, ("prompt", "UTF-8")),
    "not UTF-8 in a field of meta": ({"prompt": b"x", "note": b"\x80"}, ("note", "UTF-8")),
    "a surrogate as bytes": ({"prompt": b"\xed\xa0\x80"}, ("prompt", "UTF-8")),
    "no field that we know": ({"note": b"x"}, ("prompt",)),
    "empty prompt": ({"prompt": b""}, ("prompt",)),
    "blank prompt": ({"prompt": b" \n\t"}, ("prompt",)),
    "history that is no JSON": ({"prompt": b"x", "history": b"{"}, ("history", "JSON")),
    "history that is no list of objects": ({"prompt": b"x", "history": b"[1]"}, ("history", "JSON")),
    "history that nests without end": ({"prompt": b"x", "history": _NESTED}, ("history", "JSON")),
    "history with half a surrogate pair": ({"prompt": b"x", "history": b'[{"a": "\\ud800"}]'}, ("history",)),
    "overrides that are no object": ({"prompt": b"x", "overrides": b"[1]"}, ("overrides", "JSON")),
    "overrides that nest without end": (
        {"prompt": b"x", "overrides": b'{"a": ' + _NESTED + b"}"},
        ("overrides", "JSON"),
    ),
    "overrides with a huge number": ({"prompt": b"x", "overrides": b'{"a": ' + _LONG + b"}"}, ("overrides",)),
    "unknown priority": ({"prompt": b"x", "priority": b"urgent"}, ("priority", "urgent", "normal")),
    "deadline that is no number": ({"prompt": b"x", "deadline": b"tomorrow"}, ("deadline", "tomorrow", "Unix")),
    "deadline that is not a number": ({"prompt": b"x", "deadline": b"NaN"}, ("deadline", "Unix")),
    "deadline that never comes": ({"prompt": b"x", "deadline": b"inf"}, ("deadline", "Unix")),
    "attempt below zero": ({"prompt": b"x", "attempt": b"-1"}, ("attempt", "-1", "whole number")),
    "attempt that is no number": ({"prompt": b"x", "attempt": b"x"}, ("attempt", "whole number")),
    "attempt that looks like a number": ({"prompt": b"x", "attempt": "²".encode()}, ("attempt", "whole number")),
    "attempt beyond all numbers": ({"prompt": b"x", "attempt": b"1" + b"0" * 30}, ("attempt", "whole number")),
    "attempt of thousands of digits": ({"prompt": b"x", "attempt": _LONG}, ("attempt", "whole number")),
    "thousands of fields": ({"prompt": b"x"} | {f"f{number}": b"" for number in range(5000)}, ("5001", "fields")),
}
"""Entries that cannot be tasks, each with words that the reason must have."""


class UnreadableConformance(Conformance):
    """What a foreign program, or a broken one, may write into the queue."""

    far_too_long_bytes: ClassVar[int] = 50_000_000
    """Of a prompt that no worker takes. For an engine that stores no entry of this size: the largest that it does."""

    @pytest.fixture
    def inject_raw(self) -> InjectRaw | None:
        """Override it with a function that writes an entry past `submit`, to run the tests of unreadable entries."""
        return None

    @pytest.fixture
    def inject(self, inject_raw: InjectRaw | None) -> InjectRaw:
        """`inject_raw`, where the suite has it."""
        if inject_raw is None:
            pytest.skip("no fixture inject_raw")
        return inject_raw

    @pytest.mark.parametrize("name", _UNREADABLE)
    async def test_an_unreadable_entry_becomes_a_dead_letter(
        self, open_backend: OpenBackend, inject: InjectRaw, name: str
    ) -> None:
        """An entry that is no task goes to the dead letters with a reason that names the field and what is allowed;
        the reason is its result and its final chunk too, and the tasks around it are delivered."""
        fields, words = _UNREADABLE[name]
        backend = await open_backend()
        before = await submit(backend)
        await inject(dict(fields))
        after = await submit(backend)
        assert {delivery.task.id for delivery in await pull_some(backend, 2)} == {before, after}
        await pull_nothing(backend)
        await pull_nothing(backend)
        (letter,) = await backend.queue.dead_letters()
        assert [word for word in words if word not in letter.error] == []
        assert len(letter.error) < 1000
        assert (await backend.queue.wait(letter.task_id, PATIENCE_S)).error == letter.error
        (chunk,) = await all_chunks(backend, letter.task_id)
        assert (chunk.type, chunk.content, chunk.is_final) == (ChunkType.ERROR, letter.error, True)
        (status,) = await backend.queue.status([letter.task_id])
        assert status.state is TaskState.FAILED

    @pytest.mark.parametrize("name", ["attempt of thousands of digits", "overrides that nest without end"])
    async def test_looking_at_what_nobody_has_read_yet(
        self, open_backend: OpenBackend, inject: InjectRaw, name: str
    ) -> None:
        """Lists and figures work while such an entry still waits."""
        backend = await open_backend()
        await inject(dict(_UNREADABLE[name][0]))
        (listed,) = await backend.queue.list_tasks()
        assert listed.state is TaskState.READY
        assert (await backend.queue.status([listed.id]))[0].state is TaskState.READY
        assert (await backend.queue.stats()).ready == 1

    async def test_whoever_waits_for_an_unreadable_entry_is_told(
        self, open_backend: OpenBackend, inject: InjectRaw
    ) -> None:
        """A waiter and a subscriber that were there first are woken by the refusal."""
        backend = await open_backend()
        await inject({"note": b"no prompt"})
        (listed,) = await backend.queue.list_tasks()
        async with (
            background(backend.queue.wait(listed.id, PATIENCE_S)) as waiter,
            background(all_chunks(backend, listed.id)) as stream,
        ):
            await asyncio.sleep(0)
            await pull_nothing(backend)
            assert "prompt" in (await within(waiter)).error
            assert [chunk.is_final for chunk in await within(stream)] == [True]

    async def test_a_thousand_of_them_hide_no_task(self, open_backend: OpenBackend, inject: InjectRaw) -> None:
        """Behind a thousand unreadable entries, a task is delivered by one pull that waits for it."""
        backend = await open_backend()
        await asyncio.gather(*(inject({"note": b"%d" % number}) for number in range(1000)))
        task_id = await submit(backend)
        deliveries = await within(backend.queue.pull(100, PATIENCE_S))
        assert [delivery.task.id for delivery in deliveries] == [task_id]

        async def all_are_refused() -> bool:
            assert await backend.queue.pull(1000, 0) == []
            return (await backend.queue.stats()).dead == 1000

        await eventually(all_are_refused)

    async def test_a_prompt_beyond_the_limit(self, open_backend: OpenBackend, inject: InjectRaw) -> None:
        """A prompt of 50 MB is refused by its size, and neither letter nor reason carries it on."""
        backend = await open_backend(BackendOptions(max_prompt_bytes=8 * 1024 * 1024))
        size = self.far_too_long_bytes
        await inject({"prompt": b"x" * size})
        task_id = await submit(backend)
        assert (await pull_one(backend)).task.id == task_id

        async def is_refused() -> bool:
            await pull_nothing(backend)
            return (await backend.queue.stats()).dead == 1

        await eventually(is_refused)
        (letter,) = await backend.queue.dead_letters()
        assert f"{size} bytes" in letter.error
        assert len(letter.prompt) + sum(map(len, letter.fields.values())) < 10_000
        assert await backend.queue.requeue([letter.id]) == []
        assert [kept.id for kept in await backend.queue.dead_letters()] == [letter.id]

    async def test_a_mended_letter_is_refused_again_or_runs(self, open_backend: OpenBackend, inject: InjectRaw) -> None:
        """Requeueing an entry that is as unreadable as before ends where it began: one letter, and nothing stuck."""
        backend = await open_backend()
        await inject({"prompt": b"x", "priority": b"urgent"})
        await pull_nothing(backend)
        (letter,) = await backend.queue.dead_letters()
        await backend.queue.requeue([letter.id])
        await pull_nothing(backend)
        (again,) = await backend.queue.dead_letters()
        assert (again.task_id, again.error) == (letter.task_id, letter.error)
        stats = await backend.queue.stats()
        assert (stats.ready, stats.running) == (0, 0)
