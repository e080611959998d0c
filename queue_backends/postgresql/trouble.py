"""What the server's and the driver's errors mean to a caller."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from queue_backends.errors import BackendMisconfigured, BackendUnavailable, QueueError

# Classes and codes of https://www.postgresql.org/docs/current/errcodes-appendix.html
_AWAY_CLASSES = ("08", "53", "57", "58", "XX")
"""Connection, resources (disk, memory, connections), operator intervention, system, internal."""
_AWAY_CODES = frozenset({"25006", "55P03", "25P03", "25P04"})
"""Read-only (a standby), a lock that was not to be had, sessions that were idle for too long."""
_AGAIN = (errors.SerializationFailure, errors.DeadlockDetected)
_GONE = (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName, errors.UndefinedColumn)

# Before a session exists the driver has no code, only the server's words.
_CREDENTIALS = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry"
    r"|authentication failed for|role \".*\" does not exist|role \".*\" is not permitted to log in"
)
_MISSING = re.compile(r"database \".*\" does not exist|permission denied for database")
_URL = re.compile(r"invalid (?:URI|percent-encoded|connection option|integer|port|\w+ value)|missing \"=\"")


def is_away(error: BaseException) -> bool:
    """Whether it is the server, or the way to it, that fails, and not the statement."""
    if isinstance(error, TimeoutError | OSError | psycopg.InterfaceError):
        return True
    if not isinstance(error, psycopg.Error):
        return False
    code = error.sqlstate
    if code is None:
        return isinstance(error, psycopg.OperationalError)
    return code.startswith(_AWAY_CLASSES) or code in _AWAY_CODES


def answers(error: BaseException) -> bool:
    """Whether it is the server itself that says it cannot."""
    return isinstance(error, psycopg.Error) and error.sqlstate is not None


def may_be_repeated(error: BaseException) -> bool:
    """Whether the server has undone all of it, and the same statement may succeed in a moment."""
    return isinstance(error, _AGAIN)


def translated(error: BaseException) -> QueueError:
    """Our own error for one of the driver's."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, errors.InsufficientPrivilege):
        return BackendMisconfigured(f"the database's role lacks a right that we need: {text}")
    if isinstance(error, _GONE):
        return BackendMisconfigured(f"the queue's schema is not what it should be: {text}")
    if _is_about_set_up(error):
        return BackendMisconfigured(f"PostgreSQL refuses this connection: {text}")
    if is_away(error):
        return BackendUnavailable(f"PostgreSQL cannot be used right now: {text}")
    if may_be_repeated(error):
        return BackendUnavailable(f"PostgreSQL could not bring this in line with what others did meanwhile: {text}")
    return QueueError(f"PostgreSQL refused a statement: {text}")


def _is_about_set_up(error: BaseException) -> bool:
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is not None:
        return error.sqlstate.startswith("28") or error.sqlstate == "3D000"
    text = str(error)
    return any(pattern.search(text) for pattern in (_CREDENTIALS, _MISSING, _URL))


def is_cut(error: BaseException) -> bool:
    """Whether a connection has come to its end."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith("57P")


def is_no_fit_server(error: BaseException) -> bool:
    """Whether open connections lead to the wrong place: to a server that is read-only, or to nowhere."""
    return isinstance(error, errors.ReadOnlySqlTransaction | TimeoutError)
