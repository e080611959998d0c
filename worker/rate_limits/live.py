"""Rate limits as live settings: `limits.<name>` holds one as JSON, and counts more than the file's of the same name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

from worker.errors import BadSetting
from worker.live_settings import LiveSettings
from worker.rate_limits.gate import RateLimitGate
from worker.rate_limits.rules import Limits, RateLimit, read_limit
from worker.setting_keys import register_key

PREFIX = "limits."
OFF = "off"
"""As a value: the file's limit of this name is not in force."""

log = structlog.get_logger(__name__)


def limits_in_force(declared: Limits, live: LiveSettings) -> dict[str, RateLimit]:
    """The declared limits with the live ones over them. One that cannot be read is left out, and named in the log."""
    limits = dict(declared)
    for key, value in live.under(PREFIX).items():
        name = key.removeprefix(PREFIX)
        limits.pop(name, None)
        if value == OFF:
            continue
        try:
            limits[name] = _read(name, value)
        except BadSetting as error:
            log.warning("a rate limit cannot be read and is not kept", setting=key, error=str(error))
    return limits


@contextmanager
def following(gate: RateLimitGate, declared: Limits, live: LiveSettings) -> Iterator[None]:
    """While this is entered, the gate keeps the limits that are in force, whenever they change."""

    def changed(key: str, _value: str | None) -> None:
        if key.startswith(PREFIX):
            gate.change(limits_in_force(declared, live))

    gate.change(limits_in_force(declared, live))
    forget = live.on_change(changed)
    try:
        yield
    finally:
        forget()


def _read(name: str, value: str) -> RateLimit:
    try:
        plain = msgspec.json.decode(value)
    except msgspec.DecodeError as error:
        raise BadSetting(f"{PREFIX}{name}: no JSON: {error}") from error
    return read_limit(name, plain)


def _check(key: str, value: str) -> None:
    if value != OFF:
        _read(key.removeprefix(PREFIX), value)


register_key(PREFIX, _check)
