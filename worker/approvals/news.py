"""News of questions, for webhooks: kept until it was delivered, so that it does not matter who put the question.

| key                          | value            | lives                                          |
|------------------------------|------------------|------------------------------------------------|
| `approval-news/<id>`         | `Callback`, JSON | until told, or for a day                       |
| log `approval-news-of/<day>` | ids              | for two days: which news there may still be    |
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from queue_backends import LogRecord, StateStore
from queue_backends.messages import encode_json
from worker.approvals.question import Approval
from worker.gateway.callbacks import Callback, opened

NEWS = "approval-news/"
HELLO = "approval-news/(hello)"
DAY_S = 24 * 3600.0
KEPT_S = DAY_S
_PAGE = 500


async def keep_news(state: StateStore, asked: Approval, url: str) -> None:
    """Have a question told. An empty `url` is that of the settings, which whoever tells knows."""
    news = Callback(task_id=asked.id, id=f"msg_approval_{asked.id}", url=url, tenant=asked.tenant)
    await state.append_once([LogRecord(log=_log(time.time()), id=asked.id, value=b"", keep_s=2 * DAY_S)])
    await state.compare_and_set(NEWS + asked.id, None, encode_json(news), ttl_s=KEPT_S)


async def all_news(state: StateStore) -> AsyncIterator[Callback]:
    """What is still to be told. Looks only at what questions have left in the last days, not at all that is stored."""
    now = time.time()
    for moment in (now - 2 * DAY_S, now - DAY_S, now, now + DAY_S):  # clocks differ
        cursor = ""
        while True:
            page = await state.read_on(_log(moment), cursor, limit=_PAGE)
            if not page.entries:
                break
            cursor = page.cursor
            for entry in page.entries:
                value = await state.get(NEWS + entry.id)
                if value is not None and (news := opened(value)) is not None:
                    yield news


def _log(moment: float) -> str:
    return f"approval-news-of/{int(moment // DAY_S)}"
