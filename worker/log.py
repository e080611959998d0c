"""The process' log: one JSON object a line on stdout, or coloured text on a terminal; secrets are masked in both.

Field names are ark's: `time` (UTC, RFC 3339), `level`, `msg`, then the rest. Records of the standard `logging` module,
which libraries use, take the same way.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

MASK = "[masked]"
LEVELS = ("debug", "info", "warning", "error", "critical")

_SECRET_LAST_WORDS = frozenset({"key", "token", "cookie"})
_SECRET_WORDS = frozenset(
    {"apikey", "secret", "password", "passwd", "passphrase", "authorization", "credential", "credentials"}
)
_HARMLESS_KEYS = frozenset({"idempotency_key", "stream_key", "cache_key", "routing_key"})
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")
_SECRET_VALUES = re.compile(
    r"""
      \b(?:sk|xai|gsk|hf|gh[opsu]|glpat|xox[abprs])[-_][A-Za-z0-9_\-]{8,}   # keys by their vendors' prefixes
    | \bshoal_[a-z2-9]{12}_[0-9a-f]{16,}                                               # our own API keys
    | \bAIza[A-Za-z0-9_\-]{20,}                                                       # Google
    | \beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*                    # a JSON web token
    | (?<=\bBearer\ )\S{4,} | (?<=\bBasic\ )[A-Za-z0-9+/=]{8,}                        # HTTP authorization
    | (?<=://)[^/\s:@]*:[^/\s@]+(?=@)                                                 # user and password in a URL
    | (?:(?<=key=)|(?<=token=)|(?<=secret=)|(?<=password=))[^&\s,;'"]+                # name=value, in URLs and texts
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MAX_DEPTH = 6


def mask_text(text: str) -> str:
    """The text without what looks like a key, a bearer token or a URL's password."""
    return _SECRET_VALUES.sub(MASK, text)


def mask_secrets(logger: Any, method: str, event: EventDict) -> EventDict:
    """A structlog processor: masks values under names such as `api_key`, and secrets inside any text."""
    for name, value in event.items():
        event[name] = _masked(name, value, 0)
    return event


def configure_logging(level: str = "info", *, pretty: bool | None = None, stream: TextIO | None = None) -> None:
    """Set up the process' log. `pretty` None: if the stream is a terminal. The stream is stdout by default.

    Raises `ValueError` for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r} is not known: use one of {', '.join(LEVELS)}")
    number = getattr(logging, level.upper())
    out = stream or sys.stdout
    is_pretty = out.isatty() if pretty is None else pretty
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last = _pretty() if is_pretty else _json()
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING) if number > logging.DEBUG else number)


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        mask_secrets,
        structlog.processors.EventRenamer("msg"),
        _ark_order,
        structlog.processors.JSONRenderer(),
    ]


def _pretty() -> list[Processor]:
    return [
        mask_secrets,
        structlog.dev.ConsoleRenderer(timestamp_key="time", exception_formatter=_write_exception),
    ]


def _ark_order(logger: Any, method: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in ("time", "level", "msg") if name in event}
    return {**first, **event}


def _write_exception(stream: TextIO, error: ExcInfo) -> None:
    stream.write("\n" + mask_text("".join(traceback.format_exception(*error))))


def _masked(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool) or name == "exc_info":
        return value
    if isinstance(value, str):
        return MASK if value and _is_secret(name) else mask_text(value)
    if isinstance(value, int | float):
        return value
    if isinstance(value, bytes | bytearray):
        return MASK if _is_secret(name) else mask_text(bytes(value).decode(errors="replace"))
    if depth >= _MAX_DEPTH:
        return mask_text(str(value))
    if isinstance(value, Mapping):
        return {key: _masked(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, item, depth + 1) for item in value]
    return mask_text(str(value))


def _is_secret(name: str) -> bool:
    """`api_key`, `x-auth-token`, `clientSecret`; but not `input_tokens`, `token_type` or `key_id`."""
    if name.lower() in _HARMLESS_KEYS:
        return False
    words = [word.lower() for word in _WORD.findall(name)]
    return bool(words) and (words[-1] in _SECRET_LAST_WORDS or not _SECRET_WORDS.isdisjoint(words))
