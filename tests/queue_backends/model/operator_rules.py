"""What operators, consumers and users of the state store do."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from queue_backends.conformance.support import iterating
from queue_backends.messages import Chunk
from tests.queue_backends.model.engine_rules import EngineRules
from tests.queue_backends.model.hands import HANDS, data_draw, hands

REPLAY_PATIENCE_S = 2.0
"""A replay that comes to no end has gone wrong; this is how long it takes to say so."""

state_keys = st.sampled_from(["a", "b"])
state_values = st.sampled_from([b"", b"1", b"2"])


class OperatorRules(EngineRules):
    """Operators, consumers, and whoever keeps values."""

    @rule(hand=hands, for_long=st.integers(0, 3).map(lambda number: number == 0))
    def pause(self, hand: int, for_long: bool) -> None:
        """An operator pauses the queue: nobody gets anything. Mostly it is resumed soon."""
        self._pause(paused=True)
        self.pull(hand, 4)
        self._pause(paused=for_long)

    def _pause(self, *, paused: bool) -> None:
        self._run(self._engine.queue.pause() if paused else self._engine.queue.resume())
        self._model.paused = paused

    @precondition(lambda self: self._model.letters)
    @rule(data=data_draw, purge=st.integers(0, 3))
    def requeue_or_purge(self, data: st.DataObject, purge: int) -> None:
        """An operator brings letters back, or throws them away."""
        names = st.sampled_from([*self._model.letters, "1-1", "no-such-letter"])
        ids = data.draw(st.lists(names, min_size=1, max_size=3))
        known = [letter_id for letter_id in dict.fromkeys(ids) if letter_id in self._model.letters]
        if not purge:
            assert self._run(self._engine.queue.purge(ids)) == len(known)
            for letter_id in known:
                del self._model.letters[letter_id]
        else:
            brought_back = self._run(self._engine.queue.requeue(ids))
            assert brought_back == [self._model.requeued(letter_id) for letter_id in known]
            self.pull(purge % HANDS, 4)

    @precondition(lambda self: self._model.tasks)
    @rule(data=data_draw, after_seq=st.integers(-1, 4))
    def replay(self, data: st.DataObject, after_seq: int) -> None:
        """A consumer reads a stream from some point on, up to its end or to what there is."""
        task_id = data.draw(st.sampled_from(list(self._model.tasks)))
        after_seq = min(after_seq, len(self._model.tasks[task_id].chunks) - 1)
        self._model.check_chunks(task_id, self._run(self._read(task_id, after_seq)), after_seq=after_seq)

    async def _read(self, task_id: str, after_seq: int) -> list[Chunk]:
        written = self._model.tasks[task_id].chunks[after_seq + 1 :]
        found: list[Chunk] = []
        if not written and not any(chunk.is_final for chunk in self._model.tasks[task_id].chunks):
            return found  # it would wait for more
        stream = self._engine.chunks.subscribe(task_id, after_seq=after_seq)
        async with iterating(stream):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPLAY_PATIENCE_S):
                    async for chunk in stream:
                        found.append(chunk)
                        if len(found) == len(written) and not chunk.is_final:
                            break
        return found

    @rule(data=data_draw, key=state_keys, value=st.none() | state_values, amount=st.integers(-3, 9))
    def use_state(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        """Somebody uses the state store, in one of its ways."""
        use = data.draw(st.sampled_from([self._append_once, self._set_or_delete, self._compare_and_set, self._add]))
        use(data, key, value, amount)

    def _append_once(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        records = self._records(data)
        assert self._run(self._engine.state.append_once(records)) == self._model.appended(records)

    def _set_or_delete(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        if value is None:
            assert self._run(self._engine.state.delete(key)) == (key in self._values)
        else:
            self._run(self._engine.state.set(key, value))
        self._keep(key, value)

    def _compare_and_set(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        expected = data.draw(st.none() | state_values)
        changed = self._run(self._engine.state.compare_and_set(key, expected, value))
        assert changed == (self._values.get(key) == expected)
        if changed:
            self._keep(key, value)

    def _keep(self, key: str, value: bytes | None) -> None:
        self._values.pop(key, None)
        if value is not None:
            self._values[key] = value

    def _add(self, data: st.DataObject, key: str, value: bytes | None, amount: int) -> None:
        limit = data.draw(st.none() | st.integers(0, 12))
        total = self._run(self._engine.state.add("limited", "n", amount, limit=limit))
        if limit is not None and self._limited + amount > limit:
            assert total is None
        else:
            self._limited += amount
            assert total == self._limited
