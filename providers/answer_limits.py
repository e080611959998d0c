"""How long one model call's answer may be: for servers that do not care about `max_tokens`."""

from __future__ import annotations

from providers.errors import LimitReached

MOST_ARGUMENT_CHARS = 8 * 1024 * 1024
"""Of the tool calls of one answer, while it comes in: nobody sees them before its end, so nobody else can stop it."""
CALL_CHARS = 256
"""What a tool call without arguments weighs."""


def check_argument_chars(chars: int, provider: str) -> None:
    """Raise `LimitReached` if an answer's tool calls have grown beyond all reason."""
    if chars > MOST_ARGUMENT_CHARS:
        raise LimitReached(
            f"{provider or 'the provider'}: the arguments of one answer's tool calls have more than "
            f"{MOST_ARGUMENT_CHARS} characters: check the server",
            provider=provider,
        )


def answer_too_long(limit_chars: int, provider: str) -> LimitReached:
    """The error for an answer beyond `AgentConfig.max_answer_chars`."""
    return LimitReached(
        f"the answer has more than {limit_chars} characters (max_answer_chars): raise it, or check why the server "
        "sends more than max_tokens allows",
        provider=provider,
    )
