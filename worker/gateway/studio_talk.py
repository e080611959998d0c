"""Talking with an agent through AI Studio's API: an event stream, and messages whose answers appear on it.

Frames are Studio's, with an `id` before each, so that a client that comes back (`Last-Event-ID`, which browsers send by
themselves) goes on in the same session and misses nothing; and with comments as heartbeats.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from msgspec.structs import replace
from starlette.responses import Response

from queue_backends import Chunk, ChunkType, QueueError, Task
from queue_backends.messages import JsonObject, encode_json
from worker.agent_plugins.errors import BadPlugin, PluginNotFound
from worker.agents.errors import AgentInactive
from worker.agents.model import Agent
from worker.errors import AccessDenied
from worker.gateway.errors import problem_of
from worker.gateway.operation import Call
from worker.gateway.ownership import prepared
from worker.gateway.problem import Problem
from worker.gateway.sse import last_event_id, sse_response
from worker.gateway.sse_event import SseEvent
from worker.gateway.studio_agents import agent_of
from worker.gateway.studio_views import MessageRequest
from worker.objects import Stored
from worker.sessions.conversation_run import OWN_HISTORY
from worker.sessions.errors import ConversationBusy, SessionClosed, SessionNotFound
from worker.sessions.feed import ChunkHeard, SessionFeed, present
from worker.sessions.model import SessionRecord
from worker.sessions.positions import Position, read, written

_HEADERS = {"cache-control": "no-cache, no-transform"}
_SESSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROLES = {"user": "user", "assistant": "assistant", "system": "user"}
_NO_SESSION = "No active session found. Please establish an SSE connection first."


async def stream_agent(call: Call) -> Response:
    """A session with the agent, new or gone on with, as events."""
    agent = _open_agent(call)
    session, positions = await _session(call, agent)
    gateway = call.gateway
    feed = SessionFeed(gateway.sessions, gateway.chats, gateway.hub, session, positions)
    events = _events(call, feed, session, agent)
    return sse_response(events, heartbeat_s=gateway.settings.gateway.heartbeat_s, headers=_HEADERS, retry_ms=None)


def _open_agent(call: Call) -> Stored[Agent]:
    """The agent of the path, if the caller may talk with it now."""
    stored = agent_of(call)
    try:
        call.gateway.roster.check_access(stored, call.caller)
    except AgentInactive as error:
        raise Problem(403, "This agent is not currently active", title="Agent inactive") from error
    except AccessDenied as error:
        raise Problem(403, "You don't have access to this agent", title="Access denied") from error
    if stored.value.plugin:
        try:
            call.gateway.plugins.usable(stored.value.plugin)
        except (PluginNotFound, BadPlugin) as error:
            raise Problem(403, "The agent's plugin is not active", title="Plugin inactive") from error
    return stored


async def _session(call: Call, agent: Stored[Agent]) -> tuple[SessionRecord, Mapping[int, Position]]:
    """The session that the client had, and where it was; or a new one."""
    sessions, caller = call.gateway.sessions, call.caller
    asked = call.query.session_id
    last_session, _, last = last_event_id(call.request).partition(":")
    positions = read(last) or {}
    if asked and _SESSION_ID.fullmatch(asked):
        session = await _own_session(call, agent, asked)
        return session, positions if last_session == asked else {}
    if last_session and not asked:
        try:
            return await _own_session(call, agent, last_session), positions
        except Problem:  # it has been deleted, or was too long ago: the client gets another one
            positions = {}
    session = await sessions.create(
        agent=agent.value.slug, owner=caller.id, tenant=caller.tenant or agent.value.namespace
    )
    return session, {0: Position(1)}


async def _own_session(call: Call, agent: Stored[Agent], session_id: str) -> SessionRecord:
    """A session of the caller's with this very agent."""
    try:
        session = await call.gateway.sessions.get(session_id, owner=call.caller.id, tenant=call.caller.tenant)
    except SessionNotFound as error:
        raise Problem(404, _NO_SESSION, title="Session not found") from error
    namespace = agent.value.namespace
    if session.agent != agent.value.slug or (namespace and session.tenant != namespace):
        raise Problem(404, _NO_SESSION, title="Session not found")
    return session


async def _events(
    call: Call, feed: SessionFeed, session: SessionRecord, agent: Stored[Agent]
) -> AsyncIterator[SseEvent]:
    conversation_id = _conversation(session)
    position = feed.position
    if not position:
        chat = await call.gateway.sessions.chats.read(session.id, conversation_id)
        position = written({session.conversations[conversation_id]: present(chat)})
    yield SseEvent(encode_json(_session_json(call, agent, session)), event="session", id=f"{session.id}:{position}")
    try:
        async for happened in feed.events():
            what = happened.what
            if isinstance(what, ChunkHeard) and what.conversation_id == conversation_id:
                chunk = what.chunk
                data = encode_json(_chunk_json(chunk))
                yield SseEvent(data, event=chunk.type.lower(), id=f"{session.id}:{happened.position}")
    except QueueError as error:
        problem = problem_of(error)
        content = problem.detail if problem is not None else "the stream has ended"
        yield SseEvent(encode_json({"type": "ERROR", "content": content, "is_final": True}), event="error")


def _session_json(call: Call, agent: Stored[Agent], session: SessionRecord) -> JsonObject:
    app = call.gateway.roster.app_of(agent.value)
    datasources = app.datasources if app is not None and agent.value.datasources is None else agent.value.datasources
    tools = app.tools if app is not None and agent.value.tools is None else agent.value.tools
    return {
        "agent_id": agent.id,
        "agent_name": agent.value.title,
        "available_datasources": len(datasources or ()),
        "available_llms": len(app.llms) if app is not None else 1,
        "available_tools": len(tools or ()),
        "session_id": session.id,
    }


def _chunk_json(chunk: Chunk) -> JsonObject:
    """In Studio's order of keys. A turn that began anew says so: what a lower attempt showed of it no longer counts."""
    content = chunk.content or ("completed" if chunk.type is ChunkType.DONE else "")
    told: JsonObject = {"type": chunk.type, "content": content}
    metadata = dict(chunk.metadata)
    if "name" in metadata and chunk.type in (ChunkType.TOOL_CALL, ChunkType.TOOL_RESULT):
        metadata["tool_name"] = metadata["name"]
    if chunk.attempt:
        metadata |= {"turn": chunk.turn, "attempt": chunk.attempt}
    if metadata:
        told["metadata"] = metadata
    told["is_final"] = chunk.is_final
    return told


def _conversation(session: SessionRecord) -> str:
    """The one that Studio's API knows of: the session's first."""
    if not session.conversations:
        raise Problem(404, _NO_SESSION, title="Session not found")
    return min(session.conversations, key=lambda each: session.conversations[each])


async def post_message(call: Call) -> JsonObject:
    """A message to the agent; its answer appears on the session's streams, wherever they are."""
    agent = _open_agent(call)
    session_id = call.query.session_id
    if not session_id:
        raise Problem(400, "Session ID is required", title="Missing session ID")
    body: MessageRequest = call.body
    if not body.message.strip():
        raise Problem(400, "message is required", title="Invalid request")
    session = await _own_session(call, agent, session_id)
    task = prepared(call, replace(_task(body), agent=session.agent, tenant=session.tenant))
    try:
        await call.gateway.sessions.post(session, _conversation(session), task)
    except ConversationBusy as error:
        raise Problem(409, str(error), title="Failed to send message") from error
    except SessionClosed as error:
        raise Problem(404, _NO_SESSION, title="Session not found") from error
    return {"message": "Message sent successfully", "session_id": session.id}


def _task(body: MessageRequest) -> Task:
    """A client that sends a history keeps it itself: then ours is not put before it."""
    if not body.history:
        return Task(prompt=body.message)
    history: list[dict[str, Any]] = []
    for number, each in enumerate(body.history):
        if each.role not in _ROLES:
            raise Problem(
                400,
                f"history[{number}].role is {each.role[:50]!r}: use user, assistant or system",
                title="Invalid request",
            )
        history.append({"role": _ROLES[each.role], "content": each.content})
    return Task(prompt=body.message, history=tuple(history), meta={OWN_HISTORY: "1"})
