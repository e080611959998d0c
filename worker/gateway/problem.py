"""A request that cannot be done, and in which form its caller is told."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any


class ErrorStyle(enum.Enum):
    """Whose form of errors an operation answers with."""

    PROBLEM = "problem"
    """RFC 9457, `application/problem+json`: ours."""
    STUDIO = "studio"
    """`{"errors": [{"title": …, "detail": …}]}`"""
    OPENAI = "openai"
    """`{"error": {"message": …, "type": …, "param": …, "code": …}}`"""
    ANTHROPIC = "anthropic"
    """`{"type": "error", "error": {"type": …, "message": …}, "request_id": …}`"""


class Problem(Exception):
    """Raised by a handler; becomes the answer. `detail` says what was wrong, with which value, and what to do; it holds
    no secret."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str = "",
        code: str = "",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """`code`: a short machine-readable name, such as `task_not_found`. `extra`: further members of the answer."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or HTTPStatus(status).phrase
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


def shutting_down() -> Problem:
    """What whoever waits is told when the gateway is stopped."""
    return Problem(503, "the gateway is shutting down: ask again", code="shutting_down")
