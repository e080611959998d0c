"""JSON Schemas of the four forms of errors."""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string"}

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT,
        "code": {"type": "string", "description": "A short machine-readable name"},
        "request_id": _TEXT,
    },
}
_STUDIO: Final[dict[str, Any]] = {
    "anyOf": [
        {
            "type": "object",
            "required": ["errors"],
            "properties": {
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["title", "detail"],
                        "properties": {"title": _TEXT, "detail": _TEXT},
                    },
                }
            },
        },
        {"type": "object", "required": ["error"], "properties": {"error": _TEXT}},
    ]
}
_OPENAI: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _TEXT, "message": _TEXT},
        },
        "request_id": _TEXT,
    },
}

ERROR_SCHEMAS: Final[dict[str, Any]] = {
    "ProblemDetails": _PROBLEM,
    "StudioError": _STUDIO,
    "OpenAIError": _OPENAI,
    "AnthropicError": _ANTHROPIC,
}
