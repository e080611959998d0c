"""News of questions, for webhooks: kept until it was delivered, so that it does not matter who put the question.

| key                   | value                | lives                          |
|-----------------------|----------------------|--------------------------------|
| `approval-news/<id>`  | `Callback`, JSON     | until told, or for a day       |
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from queue_backends import StateStore
from queue_backends.messages import encode_json
from worker.approvals.question import Approval
from worker.gateway.callbacks import Callback, opened

NEWS = "approval-news/"
HELLO = "approval-news/(hello)"
KEPT_S = 24 * 3600.0


async def keep_news(state: StateStore, asked: Approval, url: str) -> None:
    """Have a question told. An empty `url` is that of the settings, which whoever tells knows."""
    news = Callback(task_id=asked.id, id=f"msg_approval_{asked.id}", url=url, tenant=asked.tenant)
    await state.compare_and_set(NEWS + asked.id, None, encode_json(news), ttl_s=KEPT_S)


async def all_news(state: StateStore) -> AsyncIterator[Callback]:
    """What is still to be told."""
    async for key, value in state.scan(NEWS):
        if key != HELLO and (news := opened(value)) is not None:
            yield news
