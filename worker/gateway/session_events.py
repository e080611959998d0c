"""What happens in a session, as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import msgspec
from starlette.responses import Response

from queue_backends import QueueError
from queue_backends.messages import JsonObject, encode_json
from worker.gateway.errors import problem_of
from worker.gateway.operation import Call
from worker.gateway.problem import Problem
from worker.gateway.session_views import ConversationView, SessionView
from worker.gateway.sse import last_event_id, sse_response
from worker.gateway.sse_event import SseEvent
from worker.sessions.feed import ChatChanged, ChunkHeard, Happening, MessageBegun, SessionFeed
from worker.sessions.model import SessionRecord
from worker.sessions.positions import Position, read


def positions_in(call: Call, otherwise: str = "") -> Mapping[int, Position]:
    """Where a client that comes back was. Raises `Problem` 400."""
    last = last_event_id(call.request) or otherwise
    positions = read(last)
    if positions is None:
        raise Problem(400, f"Last-Event-ID is {last[:100]!r}: it must be the id of an event of this stream")
    return positions


def stream_session(call: Call, session: SessionRecord, positions: Mapping[int, Position]) -> Response:
    """The response: first what the session is, then all that happens."""
    gateway = call.gateway
    feed = SessionFeed(gateway.sessions, gateway.chats, gateway.hub, session, positions)
    return sse_response(_events(feed, session), heartbeat_s=gateway.settings.gateway.heartbeat_s)


async def _events(feed: SessionFeed, session: SessionRecord) -> AsyncIterator[SseEvent]:
    yield SseEvent(encode_json(SessionView.of(session)), event="session")
    try:
        async for happened in feed.events():
            name, data = _told(happened.what, feed.session)
            yield SseEvent(encode_json(data), event=name, id=happened.position)
    except QueueError as error:
        problem = problem_of(error)
        detail = problem.detail if problem is not None else "the stream has ended"
        yield SseEvent(encode_json({"detail": detail}), event="problem")


def _told(what: Happening, session: SessionRecord) -> tuple[str, JsonObject]:
    if isinstance(what, ChatChanged):
        if not what.chat.id:
            return "conversation_deleted", {"id": what.conversation_id}
        view = ConversationView.of(what.chat, session.conversations.get(what.conversation_id, 0))
        return "conversation", msgspec.to_builtins(view)
    if isinstance(what, MessageBegun):
        return "message", msgspec.to_builtins(what)
    if isinstance(what, ChunkHeard):
        chunk = what.chunk
        return "chunk", {
            "conversation_id": what.conversation_id,
            "message_id": what.message_id,
            "task_id": chunk.task_id,
            "seq": chunk.seq,
            "turn": chunk.turn,
            "attempt": chunk.attempt,
            "type": chunk.type,
            "content": chunk.content,
            "metadata": chunk.metadata,
            "is_final": chunk.is_final,
        }
    return "missed", {"conversation_id": what.conversation_id}
