"""The sessions API: `/v1/sessions`. Talks with agents that outlive connections, gateways and workers."""

from __future__ import annotations

import asyncio
import uuid

from msgspec.structs import replace
from starlette.responses import Response

from queue_backends import Task
from worker.gateway.caller import Scope
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.ownership import agent_for, prepared
from worker.gateway.problem import Problem
from worker.gateway.session_events import positions_in, stream_session
from worker.gateway.session_views import (
    ConversationView,
    EventsQuery,
    MessageAccepted,
    MessagePage,
    MessagesQuery,
    NewConversation,
    NewMessage,
    NewSession,
    PageQuery,
    SessionChange,
    SessionPage,
    SessionView,
    Stopped,
    TitleChange,
    WholeSession,
    accepted_view,
    done_view,
    pending_views,
)
from worker.sessions.conversation_log import newest_before
from worker.sessions.feed import present
from worker.sessions.model import Chat, SessionRecord
from worker.sessions.positions import written

MOST_PAGE = 200
_LONGEST_KEY = 200


async def session_of(call: Call) -> SessionRecord:
    """The caller's own session of the path. Raises `SessionNotFound`."""
    return await call.gateway.sessions.get(call.path["id"], owner=call.caller.id, tenant=call.caller.tenant)


def task_for(call: Call, session: SessionRecord, task: Task) -> Task:
    """A message as a task that the caller may submit now: the agent is looked at anew for each. Raises `AccessDenied`,
    `AgentNotFound`."""
    return prepared(call, replace(task, agent=session.agent, tenant=session.tenant))


async def _create(call: Call) -> Answer:
    caller, body = call.caller, call.body
    agent = agent_for(call, body.agent, caller.tenant)
    session = await call.gateway.sessions.create(
        agent=agent.slug, owner=caller.id, tenant=caller.tenant or agent.namespace, title=body.title
    )
    return Answer(value=await _whole(call, session), status=201, headers={"Location": f"/v1/sessions/{session.id}"})


async def _list(call: Call) -> SessionPage:
    limit = _limit(call.query.limit)
    if call.query.offset < 0:
        raise Problem(400, f"offset is {call.query.offset}: it must be 0 or more", code="invalid_query")
    found = await call.gateway.sessions.of_owner(
        call.caller.id, call.caller.tenant or None, limit=limit + 1, offset=call.query.offset
    )
    shown = found[:limit]
    if not call.query.conversations:
        return SessionPage(sessions=tuple(map(SessionView.of, shown)), has_more=len(found) > limit)
    chats = await asyncio.gather(*map(call.gateway.sessions.conversations, shown))
    views = tuple(SessionView.of(session, of_it) for session, of_it in zip(shown, chats, strict=True))
    return SessionPage(sessions=views, has_more=len(found) > limit)


def _limit(limit: int) -> int:
    if not 1 <= limit <= MOST_PAGE:
        raise Problem(400, f"limit is {limit}: it must be 1 to {MOST_PAGE}", code="invalid_query")
    return limit


async def _get(call: Call) -> WholeSession:
    return await _whole(call, await session_of(call))


async def _whole(call: Call, session: SessionRecord) -> WholeSession:
    chats = await call.gateway.sessions.conversations(session)
    numbers = session.conversations
    return WholeSession(
        session=SessionView.of(session),
        conversations=tuple(ConversationView.of(chat, numbers[chat.id]) for chat in chats),
        last_event_id=written({numbers[chat.id]: present(chat) for chat in chats}),
    )


async def _change(call: Call) -> SessionView:
    session, sessions = await session_of(call), call.gateway.sessions
    if call.body.title is not None:
        session = await sessions.rename(session, call.body.title)
    if call.body.is_closed:
        session = await sessions.close(session)
    return SessionView.of(session)


async def _delete(call: Call) -> Answer:
    await call.gateway.sessions.delete(await session_of(call))
    return Answer()


async def _events(call: Call) -> Response:
    positions = positions_in(call, call.query.after)
    return stream_session(call, await session_of(call), positions)


# Conversations


async def _add_conversation(call: Call) -> Answer:
    session, sessions = await session_of(call), call.gateway.sessions
    chat = await sessions.add_conversation(session, title=call.body.title)
    session = await sessions.again(session.id)
    return Answer(value=ConversationView.of(chat, session.conversations.get(chat.id, 0)), status=201)


async def _conversation(call: Call) -> tuple[SessionRecord, Chat]:
    session = await session_of(call)
    return session, await call.gateway.sessions.conversation(session, call.path["cid"])


async def _get_conversation(call: Call) -> ConversationView:
    session, chat = await _conversation(call)
    return ConversationView.of(chat, session.conversations[chat.id])


async def _rename_conversation(call: Call) -> ConversationView:
    session, chat = await _conversation(call)
    chat = await call.gateway.sessions.rename_conversation(session, chat.id, call.body.title)
    return ConversationView.of(chat, session.conversations[chat.id])


async def _delete_conversation(call: Call) -> Answer:
    session, chat = await _conversation(call)
    await call.gateway.sessions.delete_conversation(session, chat.id)
    return Answer()


async def _messages(call: Call) -> MessagePage:
    session, chat = await _conversation(call)
    if chat.running is not None:  # what has ended is shown as ended, whoever was to note it
        chat = await call.gateway.sessions.chats.advance(session.id, chat.id)
    exchanges, has_more = await newest_before(
        call.gateway.backend.state, session.tenant, chat.id, before=call.query.before, limit=_limit(call.query.limit)
    )
    message_ids = {each.task_id: each.id for each in chat.recent}
    views = [done_view(each, message_ids) for each in exchanges]
    if not call.query.before:
        views += pending_views(chat, [view.task_id for view in views])
    position = {session.conversations[chat.id]: present(chat)}
    return MessagePage(messages=tuple(views), has_more=has_more, last_event_id=written(position))


async def _post(call: Call) -> Answer:
    session, chat = await _conversation(call)
    content = call.body.content
    if not content.strip():
        raise Problem(422, "content is empty: say something", code="empty_message")
    task = task_for(call, session, Task(prompt=content, overrides=call.body.overrides, meta=call.body.meta))
    posted = await call.gateway.sessions.post(session, chat.id, task, message_id=_message_id(call))
    return _accepted(accepted_view(chat.id, posted))


def _message_id(call: Call) -> str:
    given = call.request.headers.get("idempotency-key", "").strip()
    if len(given) > _LONGEST_KEY or not given.isprintable():
        raise Problem(400, f"Idempotency-Key must have at most {_LONGEST_KEY} printable characters")
    return given


def _accepted(view: MessageAccepted) -> Answer:
    headers = {"Location": f"/v1/tasks/{view.task_id}"} if view.task_id else {}
    return Answer(value=view, status=202, headers=headers)


async def _stop(call: Call) -> Stopped:
    session, chat = await _conversation(call)
    return Stopped(message_ids=tuple(await call.gateway.sessions.chats.stop(session.id, chat.id)))


async def _retry(call: Call) -> Answer:
    session, chat = await _conversation(call)
    task_for(call, session, Task(prompt="again"))
    posted = await call.gateway.sessions.retry(session, chat.id, message_id=_message_id(call) or str(uuid.uuid4()))
    return _accepted(accepted_view(chat.id, posted))


_TAG = "Sessions"
_SESSION = "/v1/sessions/{id}"
_CONVERSATION = "/v1/sessions/{id}/conversations/{cid}"
_USE = Scope.AGENTS_USE

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="POST",
        path="/v1/sessions",
        handler=_create,
        summary="Open a session with an agent; it has a conversation already",
        scope=_USE,
        tag=_TAG,
        body=NewSession,
        result=WholeSession,
        status=201,
        errors=(404, 422),
    ),
    Operation(
        method="GET",
        path="/v1/sessions",
        handler=_list,
        summary="List your sessions, those used last first",
        scope=_USE,
        tag=_TAG,
        query=PageQuery,
        result=SessionPage,
    ),
    Operation(
        method="GET",
        path=_SESSION,
        handler=_get,
        summary="Get a session, its conversations, and what is being answered",
        scope=_USE,
        tag=_TAG,
        result=WholeSession,
        errors=(404,),
    ),
    Operation(
        method="PATCH",
        path=_SESSION,
        handler=_change,
        summary="Rename or close a session",
        scope=_USE,
        tag=_TAG,
        body=SessionChange,
        result=SessionView,
        errors=(404,),
    ),
    Operation(
        method="DELETE",
        path=_SESSION,
        handler=_delete,
        summary="Delete a session with all its messages; answers that are being written are stopped",
        scope=_USE,
        tag=_TAG,
        status=204,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path=f"{_SESSION}/events",
        handler=_events,
        summary="All that happens in a session, as server-sent events; Last-Event-ID resumes",
        scope=_USE,
        tag=_TAG,
        query=EventsQuery,
        is_stream=True,
        errors=(404,),
    ),
    Operation(
        method="POST",
        path=f"{_SESSION}/conversations",
        handler=_add_conversation,
        summary="Open a further conversation",
        scope=_USE,
        tag=_TAG,
        body=NewConversation,
        result=ConversationView,
        status=201,
        errors=(404, 409),
    ),
    Operation(
        method="GET",
        path=_CONVERSATION,
        handler=_get_conversation,
        summary="Get a conversation, and what is being answered in it",
        scope=_USE,
        tag=_TAG,
        result=ConversationView,
        errors=(404,),
    ),
    Operation(
        method="PATCH",
        path=_CONVERSATION,
        handler=_rename_conversation,
        summary="Rename a conversation",
        scope=_USE,
        tag=_TAG,
        body=TitleChange,
        result=ConversationView,
        errors=(404,),
    ),
    Operation(
        method="DELETE",
        path=_CONVERSATION,
        handler=_delete_conversation,
        summary="Delete a conversation with its messages",
        scope=_USE,
        tag=_TAG,
        status=204,
        errors=(404,),
    ),
    Operation(
        method="GET",
        path=f"{_CONVERSATION}/messages",
        handler=_messages,
        summary="Messages with their answers, reasoning, tool calls and results; the newest page first",
        scope=_USE,
        tag=_TAG,
        query=MessagesQuery,
        result=MessagePage,
        errors=(404,),
    ),
    Operation(
        method="POST",
        path=f"{_CONVERSATION}/messages",
        handler=_post,
        summary="Say something; an Idempotency-Key makes it safe to send again",
        scope=_USE,
        tag=_TAG,
        body=NewMessage,
        result=MessageAccepted,
        status=202,
        errors=(404, 409, 422),
    ),
    Operation(
        method="POST",
        path=f"{_CONVERSATION}/stop",
        handler=_stop,
        summary="Stop the answer that is being written, and forget what waits",
        scope=_USE,
        tag=_TAG,
        result=Stopped,
        errors=(404,),
    ),
    Operation(
        method="POST",
        path=f"{_CONVERSATION}/retry",
        handler=_retry,
        summary="Ask the last message again; its earlier answer no longer counts",
        scope=_USE,
        tag=_TAG,
        result=MessageAccepted,
        status=202,
        errors=(404, 409),
    ),
)
