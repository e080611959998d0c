"""Where sessions and conversations are put together, from settings."""

from __future__ import annotations

from queue_backends import Backend
from worker.gateway.ownership import KEEP_S
from worker.sessions.conversations import DAY_S, Conversations
from worker.sessions.store import Sessions
from worker.settings import Settings


def sessions_of(settings: Settings, backend: Backend) -> Sessions:
    """The sessions of a backend."""
    return Sessions(
        backend.state,
        backend.queue,
        keep_s=settings.conversation_retention_days * DAY_S,
        tasks_keep_s=settings.backend.result_retention_s + KEEP_S,
        refuses_when_busy=settings.conversation_busy == "refuse",
    )


def conversations_of(settings: Settings, backend: Backend) -> Conversations:
    """What a worker's runs need to take part in conversations, and to start what waits behind them."""
    sessions = sessions_of(settings, backend)
    return Conversations(
        backend.state,
        backend.queue,
        keep_s=settings.conversation_retention_days * DAY_S,
        on_ended=sessions.task_ended,
        look=sessions.chats.waiting.look,
    )
