"""What the server's refusals and the driver's errors mean to the caller."""

from __future__ import annotations

import ssl

import nats.errors
from msgspec import Struct

from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError

STREAM_NOT_FOUND, CONSUMER_NOT_FOUND = 10059, 10014
_CONFLICTS = frozenset({10071, 10164, 10201})
"""Wrong last sequence, the same while another write is under way, and a message id that is known."""
_SET_UP = frozenset({10039, 10076, 10052, 10074, 10166, 10174})
"""JetStream not enabled for the account, or not at all; a configuration, or a number of copies, that it refuses."""
_TOO_LARGE = frozenset({10054})
_TEMPORARY_CODES = frozenset({408, 429, 503})


class ApiError(Struct, frozen=True):
    """An error as JetStream reports it."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Conflict(Exception):
    """A record was not as expected: nothing was written. Never leaves this package."""


def refusal(error: ApiError) -> Exception:
    """What a refusal means."""
    text = f"{error.description} ({error.err_code})"
    if error.err_code in _CONFLICTS:
        return Conflict(text)
    if error.err_code in _SET_UP:
        return BackendMisconfigured(f"the NATS server does not allow what a queue needs: {text}")
    if "too large" in error.description or error.err_code in _TOO_LARGE:
        return QueueError(f"the message is larger than the NATS server keeps: {text}: shorten it")
    if error.code in _TEMPORARY_CODES or "exceeded" in error.description or "resource" in error.description:
        return BackendUnavailable(f"the NATS server cannot work right now: {text}")
    return QueueError(f"the NATS server refused a command: {text}")


def translated(error: Exception) -> QueueError:
    """What a driver's error means."""
    text = str(error) or type(error).__name__
    if isinstance(error, QueueError):
        return error
    if is_about_credentials(error):
        return BackendMisconfigured(f"the NATS server refuses these credentials: {text}")
    if isinstance(error, nats.errors.NoRespondersError):
        return BackendUnavailable("JetStream does not answer: it is starting, has no leader, or is not enabled")
    if isinstance(error, nats.errors.MaxPayloadError):
        return QueueError("the message is larger than the NATS server's max_payload: raise it there (64MB at most)")
    if isinstance(error, ssl.SSLCertVerificationError):
        return BackendMisconfigured(f"the NATS server's certificate is not trusted: {text}: name its authority, ?ca=")
    if isinstance(error, nats.errors.Error | OSError | TimeoutError | EOFError):
        return BackendUnavailable(f"the NATS server cannot be reached: {text}")
    return QueueError(f"the NATS server refused a command: {text}")


def is_about_credentials(error: BaseException) -> bool:
    """Wrong ones, none, or expired ones."""
    if isinstance(error, nats.errors.AuthorizationError | nats.errors.InvalidUserCredentialsError):
        return True
    text = str(error).lower()
    return isinstance(error, nats.errors.Error) and (
        "authorization violation" in text or "authentication" in text or "authentication_timeout" in text
    )
