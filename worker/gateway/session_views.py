"""What the sessions API takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from providers import ImagePart, Message, TextPart, ThinkingPart, ToolCall, ToolOutcome
from providers.tool_loop import arguments_of
from queue_backends import RUN_CANCELLED, TokenUsage
from queue_backends.messages import JsonObject
from worker.sessions.conversation_log import Exchange
from worker.sessions.model import Asked, Chat, Done, SessionRecord


class NewSession(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A session that shall be opened."""

    agent: str = ""
    """Slug, name or id; empty: the default agent."""
    title: str = ""


class SessionChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall become different."""

    title: str | None = None
    is_closed: Literal[True] | None = None
    """A closed session takes no more messages, and is never opened again."""


class NewConversation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation that shall be opened."""

    title: str = ""


class TitleChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another title."""

    title: str


class NewMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user says."""

    content: str
    overrides: JsonObject = {}
    """Of the agent's configuration, for this message; as a task's."""
    meta: dict[str, str] = {}


class PageQuery(Struct, frozen=True, kw_only=True):
    """Which part of a list."""

    limit: int = 50
    offset: int = 0
    conversations: bool = False
    """With each session's conversations, and what runs in them."""


class MessagesQuery(Struct, frozen=True, kw_only=True):
    """Which part of a conversation."""

    limit: int = 50
    before: str = ""
    """Task id of a message: those before it."""


class EventsQuery(Struct, frozen=True, kw_only=True):
    """Where the events begin."""

    after: str = ""
    """A `last_event_id`; the header `Last-Event-ID` counts more."""


class WaitingView(Struct, frozen=True, kw_only=True):
    """A message that is not answered yet."""

    message_id: str
    content: str
    at: float
    task_id: str = ""
    """Empty while it waits for its turn."""


class ConversationView(Struct, frozen=True, kw_only=True):
    """A conversation. Times are Unix seconds."""

    id: str
    number: int
    title: str
    created_at: float
    used_at: float
    message_count: int
    """How many messages were started."""
    running: WaitingView | None
    waiting: tuple[WaitingView, ...]

    @classmethod
    def of(cls, chat: Chat, number: int) -> ConversationView:
        """The view of what is stored."""
        return cls(
            id=chat.id,
            number=number,
            title=chat.title,
            created_at=chat.created_at,
            used_at=chat.used_at,
            message_count=chat.count,
            running=None if chat.running is None else waiting_view(chat.running),
            waiting=tuple(map(waiting_view, chat.waiting)),
        )


class SessionView(Struct, frozen=True, kw_only=True):
    """A session. Times are Unix seconds."""

    id: str
    agent: str
    title: str
    created_at: float
    used_at: float
    is_closed: bool
    conversation_ids: tuple[str, ...]
    conversations: tuple[ConversationView, ...] | UnsetType = UNSET
    """In a list for which they were asked."""

    @classmethod
    def of(cls, session: SessionRecord, chats: Iterable[Chat] | None = None) -> SessionView:
        """The view of what is stored."""
        return cls(
            id=session.id,
            agent=session.agent,
            title=session.title,
            created_at=session.created_at,
            used_at=session.used_at,
            is_closed=session.closed_at is not None,
            conversation_ids=tuple(sorted(session.conversations, key=lambda each: session.conversations[each])),
            conversations=UNSET
            if chats is None
            else tuple(ConversationView.of(chat, session.conversations[chat.id]) for chat in chats),
        )


class WholeSession(Struct, frozen=True, kw_only=True):
    """A session with what goes on in it."""

    session: SessionView
    conversations: tuple[ConversationView, ...]
    last_event_id: str
    """The event stream begun after it tells all that happens from this answer on, and answers that are being written
    from their beginning."""


class SessionPage(Struct, frozen=True, kw_only=True):
    """Some sessions, those used last first."""

    sessions: tuple[SessionView, ...]
    has_more: bool


class MessageAccepted(Struct, frozen=True, kw_only=True):
    """A message was taken."""

    message_id: str
    conversation_id: str
    task_id: str
    """Empty while it waits for its turn."""
    state: Literal["running", "queued", "done"]


class Stopped(Struct, frozen=True, kw_only=True):
    """Messages whose answers were stopped, or that will not be answered."""

    message_ids: tuple[str, ...]


class AnswerPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of an answer, typed as chunks are."""

    type: Literal["CONTENT", "THINKING", "TOOL_CALL", "TOOL_RESULT"]
    content: str = ""
    id: str = ""
    name: str = ""
    arguments: Any = None
    is_error: bool = False


class MessageView(Struct, frozen=True, kw_only=True):
    """A message of the user's and what was answered. Times are Unix seconds."""

    task_id: str
    """Empty while it waits for its turn."""
    state: Literal["done", "failed", "cancelled", "running", "queued"]
    content: str
    images: tuple[ImagePart, ...] = ()
    answer: tuple[AnswerPart, ...] = ()
    """Of a running one nothing: the events tell it from its beginning."""
    error: str = ""
    error_type: str = ""
    """The error's class, where it is known: `RateLimited`, `BudgetExceeded` and so on."""
    at: float = 0.0
    message_id: str = ""
    """Where it is still known."""
    ended_at: float = 0.0
    """0: not known, or not ended."""
    usage: TokenUsage | None = None
    """Of the whole answer, tools' turns included; None: not known."""
    cost_usd: float | None = None


class MessagePage(Struct, frozen=True, kw_only=True):
    """Some messages of a conversation, oldest first; those that run or wait at the end of the newest page."""

    messages: tuple[MessageView, ...]
    has_more: bool
    """There are older ones: ask again with `before`."""
    last_event_id: str


def waiting_view(asked: Asked) -> WaitingView:
    """The view of a message that runs or waits."""
    return WaitingView(message_id=asked.id, content=asked.task.prompt, at=asked.at, task_id=asked.task_id)


def accepted_view(conversation_id: str, posted: Asked | Done) -> MessageAccepted:
    """The view of a message that was taken."""
    if isinstance(posted, Done):
        state: Literal["running", "queued", "done"] = "done"
    else:
        state = "running" if posted.number else "queued"
    return MessageAccepted(message_id=posted.id, conversation_id=conversation_id, task_id=posted.task_id, state=state)


def done_view(exchange: Exchange, message_ids: Mapping[str, str]) -> MessageView:
    """The view of a message that was answered, or whose answer was ended; its id by its task, where it is known."""
    state: Literal["done", "failed", "cancelled"] = "done"
    if exchange.error:
        state = "cancelled" if exchange.error == RUN_CANCELLED else "failed"
    asked = [part for message in exchange.asked for part in message.parts]
    return MessageView(
        task_id=exchange.task_id,
        state=state,
        content="".join(part.text for part in asked if isinstance(part, TextPart)),
        images=tuple(part for part in asked if isinstance(part, ImagePart)),
        answer=tuple(_parts(exchange.answered)),
        error=exchange.error,
        error_type=exchange.error_type,
        at=exchange.began_at,
        ended_at=exchange.ended_at,
        usage=exchange.usage,
        cost_usd=exchange.cost_usd,
        message_id=message_ids.get(exchange.task_id, ""),
    )


def pending_views(chat: Chat, shown: Iterable[str]) -> Sequence[MessageView]:
    """The views of what runs or waits, but for tasks that are shown already."""
    known = set(shown)
    pending = [chat.running] if chat.running is not None else []
    return [
        MessageView(
            task_id=each.task_id,
            state="running" if each.number else "queued",
            content=each.task.prompt,
            at=each.at,
            message_id=each.id,
        )
        for each in (*pending, *chat.waiting)
        if not each.task_id or each.task_id not in known
    ]


def _parts(messages: Iterable[Message]) -> Iterable[AnswerPart]:
    for message in messages:
        for part in message.parts:
            match part:
                case TextPart() if part.text:
                    yield AnswerPart(type="CONTENT", content=part.text)
                case ThinkingPart() if part.text:
                    yield AnswerPart(type="THINKING", content=part.text)
                case ToolCall():
                    arguments = arguments_of(part)
                    yield AnswerPart(
                        type="TOOL_CALL", content=part.name, id=part.id, name=part.name, arguments=arguments
                    )
                case ToolOutcome():
                    yield AnswerPart(
                        type="TOOL_RESULT",
                        content=part.content,
                        id=part.call_id,
                        name=part.name,
                        is_error=part.is_error,
                    )


def plain(value: Any) -> JsonObject:
    """A view as an object, to be put beside other members."""
    converted: JsonObject = msgspec.to_builtins(value)
    return converted
