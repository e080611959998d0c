"""What can go wrong with sessions.

SessionError
├── SessionNotFound        there is none of that id, or it is somebody else's
├── ConversationNotFound   the session has no such conversation
├── ConversationBusy       it is being answered, and messages do not wait here: send it again later, or stop the answer
├── NothingToRetry         nothing was asked yet, or the last message is being answered
├── SessionClosed          it takes no more messages
├── TooLong                a message, with the history that its sender keeps, is too long
└── TooMuch                too many conversations, or too much that waits
"""

from __future__ import annotations

from worker.errors import WorkerError


class SessionError(WorkerError):
    """Root of what goes wrong with sessions."""


class SessionNotFound(SessionError):
    """There is no such session for this caller."""


class ConversationNotFound(SessionError):
    """The session has no such conversation."""


class ConversationBusy(SessionError):
    """The conversation is being answered."""


class NothingToRetry(SessionError):
    """There is no message that could be answered again."""


class SessionClosed(SessionError):
    """The session takes no more messages."""


class TooLong(SessionError):
    """A message is too long; the message says how long it may be."""


class TooMuch(SessionError):
    """A limit of sessions is reached; the message says which."""
