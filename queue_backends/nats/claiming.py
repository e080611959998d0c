"""From an offered entry to a delivery: by a write of the task's record that only one worker can make."""

from __future__ import annotations

import asyncio
import enum
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from queue_backends.errors import BackendUnavailable, InvalidTask
from queue_backends.interfaces import ATTEMPTS_PER_DELIVERY, BackendOptions, Delivery
from queue_backends.messages import Task, TaskResult
from queue_backends.nats.chunk_writing import ChunkWriter, next_seq_after
from queue_backends.nats.committing import Committer
from queue_backends.nats.ending import final_error, letter_id
from queue_backends.nats.entries import decode_fields, encode_task, task_of
from queue_backends.nats.fetching import Fetcher
from queue_backends.nats.holding import Held, Holdings
from queue_backends.nats.ledger import Ledger, Stored
from queue_backends.nats.letters import KEPT_OF_REFUSED, Letter, encode_letter
from queue_backends.nats.offers import Offer
from queue_backends.nats.records import Stage, TaskRecord, decode_record
from queue_backends.nats.refusals import Conflict
from queue_backends.nats.renewing import Beat, decode_beat
from queue_backends.nats.repeating import pauses
from queue_backends.nats.writes import Write

PUT_OFF_S = 1.0
MOST_UNCONFIRMED = 10_000

log = structlog.get_logger(__name__)


class _Fate(enum.Enum):
    DROP = enum.auto()
    """It belongs to a run that is over."""


class Claimer:
    """Claims what is offered, for one worker."""

    def __init__(
        self,
        ledger: Ledger,
        fetcher: Fetcher,
        holdings: Holdings,
        committer: Committer,
        writer: ChunkWriter,
        options: BackendOptions,
        worker: str,
        cancel_asked: Callable[[str], None],
    ) -> None:
        self._ledger = ledger
        self._subjects = ledger.subjects
        self._fetcher = fetcher
        self._holdings = holdings
        self._committer = committer
        self._writer = writer
        self._options = options
        self._worker = worker
        self._cancel_asked = cancel_asked
        self._unconfirmed: dict[str, Offer | None] = {}
        """Tokens of claims whose answer never came; with the entry, until it was asked for again."""

    async def claim(self, offers: Sequence[Offer]) -> list[Delivery]:
        """The deliveries among what is offered, in order. What else there is of it is dropped, refused or put off."""
        known = [offer for offer in offers if offer.may_be_known]
        found = await self._ledger.last_of([self._subjects.task(offer.task_id) for offer in known], fresh=True)
        beats = await self._beats(found)
        claims = (self._claim(offer, found.get(self._subjects.task(offer.task_id)), beats) for offer in offers)
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        deliveries = [outcome for outcome in outcomes if isinstance(outcome, Delivery)]
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures and not deliveries:
            raise failures[0]
        if failures:  # what is ours is ours; the others come again
            log.warning("tasks could not be claimed", count=len(failures), error=str(failures[0]))
        return deliveries

    async def _beats(self, found: Mapping[str, Stored]) -> dict[str, tuple[Beat, float]]:
        """What the owners of these tasks have renewed last, by worker."""
        records = [decode_record(stored) for stored in found.values()]
        workers = {record.worker for record in records if record.stage is Stage.RUNNING}
        subjects = {self._subjects.beat(worker): worker for worker in workers}
        beats = await self._ledger.last_of(list(subjects)) if subjects else {}
        return {subjects[subject]: (decode_beat(stored.data), stored.at) for subject, stored in beats.items()}

    async def _claim(
        self, offer: Offer, stored: Stored | None, beats: Mapping[str, tuple[Beat, float]]
    ) -> Delivery | None:
        task: Task | InvalidTask
        try:
            task = task_of(offer.task_id, offer.stored.data, options=self._options)
        except InvalidTask as error:
            task = error
        for pause_s in pauses():
            record = self._wanted(offer, stored, beats)
            if record is _Fate.DROP:
                await self._ledger.connection.publish(offer.ack_subject, b"+ACK")
                return None
            if isinstance(record, float):
                await self._fetcher.put_off(offer, record)
                return None
            assert isinstance(record, TaskRecord)  # noqa: S101 - all that is left
            try:
                if isinstance(task, InvalidTask):
                    await self._refuse(offer, stored, str(task))
                    return None
                return await self._take(offer, task, record, stored.revision if stored else 0)
            except Conflict:
                await asyncio.sleep(pause_s)
                stored = await self._ledger.last(self._subjects.task(offer.task_id), fresh=True)
        await self._fetcher.put_off(offer, PUT_OFF_S)
        return None

    def _wanted(
        self, offer: Offer, stored: Stored | None, beats: Mapping[str, tuple[Beat, float]]
    ) -> TaskRecord | _Fate | float:
        """The record that claims the entry; or that it is to be dropped; or for how many seconds to put it off."""
        token = uuid.uuid4().hex[:16]
        fresh = TaskRecord(
            stage=Stage.RUNNING, run=offer.entry.run, entry=offer.stored.revision, token=token, worker=self._worker
        )
        if stored is None:
            return fresh
        record = decode_record(stored)
        if record.stage is Stage.ENDED or offer.entry.run < record.run:
            return _Fate.DROP
        if offer.entry.run > record.run:
            return PUT_OFF_S  # another server has not heard of the last run yet
        if record.stage is Stage.WAITING:
            return fresh
        if offer.stored.revision < record.entry:
            return _Fate.DROP
        crashes = record.crashes
        if record.token not in self._unconfirmed:
            left_s = self._left_s(stored, record, beats)
            if left_s > 0:
                return left_s
            crashes += 1
        return msgspec.structs.replace(fresh, crashes=crashes, cancel=record.cancel)

    def _left_s(self, stored: Stored, record: TaskRecord, beats: Mapping[str, tuple[Beat, float]]) -> float:
        """How long the owner's lease may still run. The server may have forgotten what was renewed just before it died,
        and nobody could renew while it was away: so three witnesses are heard."""
        lease_s, now = self._options.lease_s, self._ledger.now()
        left_s = stored.at + lease_s - now
        beat, at = beats.get(record.worker, (None, 0.0))
        if beat is not None and record.token in beat.tokens:
            left_s = max(left_s, at + lease_s - now)
        if (held := self._holdings.holds(record.token)) is not None:
            left_s = max(left_s, held.renewed_at + lease_s - time.monotonic())
        since_s = self._ledger.connection.availability.since_silence_s()
        return max(left_s, lease_s / 2 - since_s)

    async def _take(self, offer: Offer, task: Task, record: TaskRecord, revision: int) -> Delivery:
        write = self._committer.endings.task_write(offer.task_id, record, revision)
        try:
            revision = await self._ledger.write(write)
        except BackendUnavailable:
            while len(self._unconfirmed) >= MOST_UNCONFIRMED:
                del self._unconfirmed[next(iter(self._unconfirmed))]
            self._unconfirmed[record.token] = offer
            raise
        entry, crashes = offer.entry, record.crashes
        delivery = Delivery(
            task=msgspec.structs.replace(task, attempt=task.attempt + crashes) if crashes else task,
            entry_id=str(offer.stored.revision),
            token=record.token,
            redeliveries=crashes,
            first=entry.run == 0 and crashes == 0 and task.attempt == 0,
            next_attempt=entry.next_attempt + crashes * ATTEMPTS_PER_DELIVERY,
            worker=self._worker,
        )
        self._holdings.add(Held(delivery, record, revision, offer.ack_subject, entry.spent))
        if record.cancel:
            self._cancel_asked(offer.task_id)
        return delivery

    async def retry_unconfirmed(self) -> None:
        """Have those offered again at once whose claim may have arrived: a claim of ours is then known as ours."""
        for token, offer in list(self._unconfirmed.items()):
            if offer is not None:
                await self._fetcher.put_off(offer, 0)
                self._unconfirmed[token] = None

    async def _refuse(self, offer: Offer, stored: Stored | None, reason: str) -> None:
        """An entry that is no task: to the dead letters, with its reason as result and final chunk."""
        log.warning("unreadable entry goes to the dead letters", task=offer.task_id, reason=reason)
        next_seq = 0
        if stored is not None:
            next_seq = next_seq_after(await self._ledger.last_matching(self._subjects.chunks(offer.task_id)))
        name, now = letter_id(), time.time()
        letter, entry = self._letter(offer, reason, now)
        ended = TaskRecord(
            stage=Stage.ENDED,
            run=offer.entry.run,
            result=TaskResult(task_id=offer.task_id, error=reason, finished_at=now),
            letter=name,
        )
        await self._ledger.write_all(
            [
                *self._writer.messages(offer.task_id, next_seq, [final_error(reason)]),
                Write(self._subjects.letter(name), encode_letter(letter, entry)),
                self._committer.endings.task_write(offer.task_id, ended, stored.revision if stored else 0),
            ]
        )
        await self._committer.acknowledge([offer.ack_subject])
        await self._committer.trim_letters(buried=1)

    def _letter(self, offer: Offer, reason: str, now: float) -> tuple[Letter, bytes]:
        data = offer.stored.data
        try:
            prompt = decode_fields(data).get("prompt", "")
        except InvalidTask:
            prompt = ""
        is_whole = len(data) <= 2 * self._options.max_prompt_bytes and (
            len(prompt.encode("utf-8", "replace")) <= self._options.max_prompt_bytes
        )
        shown = prompt[:KEPT_OF_REFUSED]
        letter = Letter(
            task_id=offer.task_id,
            error=reason,
            prompt=shown,
            next_attempt=offer.entry.next_attempt,
            dead_at=now,
            is_whole=is_whole,
            lane=offer.consumer,
        )
        return letter, data if is_whole else encode_task(Task(prompt=shown))
