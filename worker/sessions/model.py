"""What is stored of sessions, beside the messages themselves.

- `session-records/<id>` is a session: whose it is, its agent, its conversations.
- `session-chats/<session>/<conversation>` says what of a conversation is being answered, and what waits. All who start
  messages change it by compare-and-set, so that messages run one after the other, in the order in which they came.
- `session-waiting/<session>/<conversation>` says that something waits there, `session-deleted/<tenant>/<conversation>`
  that it was deleted.
- The log `session-owners/<digest>` names the sessions of one owner, by the day of their use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import quote

from msgspec import Struct

from queue_backends import Task

MOST_CONVERSATIONS = 100
"""Of one session, at a time."""
MOST_WAITING = 50
"""Messages of one conversation."""
MOST_TASK_BYTES = 250_000
"""Of a message as a task, in JSON. The record of a conversation holds what runs, what ran last, and what waits; some
stores take a megabyte at most."""
MOST_WAITING_BYTES = 250_000
"""Of all messages of one conversation that wait."""
MOST_RECENT = 64
"""So many messages that were answered can be followed again by their number."""

CHATS = "session-chats/"


class SessionRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session. Times are Unix seconds."""

    id: str = ""
    """Empty: there is none."""
    agent: str = ""
    """Slug."""
    owner: str = ""
    """Id of the caller whose session it is."""
    tenant: str = ""
    """Namespace of its tasks and its agent."""
    title: str = ""
    created_at: float = 0.0
    used_at: float = 0.0
    closed_at: float | None = None
    conversations: Mapping[str, int] = {}
    """Id -> its number in the session, which is never given again."""
    next_number: int = 0


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message of the user's, as a task."""

    id: str
    """Of the message: given by its sender, or by us."""
    task: Task
    """As it is submitted; its id is empty."""
    number: int = 0
    """Counts the messages of the conversation from 1 in the order in which they are answered; 0: it waits."""
    task_id: str = ""
    """Empty: it is not submitted yet."""
    at: float = 0.0
    """When it came. Unix seconds."""


class Done(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that was answered, or whose answer was ended."""

    id: str
    number: int
    task_id: str


class Chat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What goes on in one conversation."""

    id: str = ""
    """Of the conversation. Empty: there is none."""
    session_id: str = ""
    owner: str = ""
    """As the session's."""
    tenant: str = ""
    title: str = ""
    created_at: float = 0.0
    used_at: float = 0.0
    count: int = 0
    """How many messages were started."""
    running: Asked | None = None
    waiting: tuple[Asked, ...] = ()
    recent: tuple[Done, ...] = ()
    last: Task | None = None
    """The message that was answered last, as it was submitted: what a retry asks again."""

    def known(self, message_id: str) -> Asked | Done | None:
        """The message of that id, if it has come before."""
        known: list[Asked | Done] = [*self.waiting, *reversed(self.recent)]
        if self.running is not None:
            known.insert(0, self.running)
        return next((each for each in known if each.id == message_id), None)


def session_key(session_id: str) -> str:
    """Where a session is stored."""
    return f"session-records/{session_id}"


def chat_key(session_id: str, conversation_id: str) -> str:
    """Where it is stored what goes on in a conversation."""
    return f"{CHATS}{session_id}/{conversation_id}"


def deleted_key(tenant: str, conversation_id: str) -> str:
    """Is there for a conversation that was deleted: what still comes to its log is deleted, too."""
    return f"session-deleted/{quote(tenant, safe='')}/{quote(conversation_id, safe='')}"


def owner_log(owner: str) -> str:
    """The log that names an owner's sessions."""
    digest = hashlib.blake2b(owner.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"session-owners/{digest}"
