"""Where a session's last run was answered: there the vendor has its conversation in the cache.

`route-session:<route>:<digest of tenant and session>` holds the target's name and when it was written. It disappears
when the session has been silent for the route's `sticky_s`. All workers share it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time

import structlog

from queue_backends import QueueError, StateStore, Task
from worker.routing.route import Route

_LIMIT_S = 2.0
_FRESH_SHARE = 0.25
"""What was written more lately than this share of its lifetime is not written again."""

log = structlog.get_logger(__name__)


class Sessions:
    """Reads and writes them. A store that is away, or slow, costs a session its cache and nothing else."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    async def target_of(self, route: Route, task: Task) -> tuple[str, float]:
        """The target that answered last, empty if none did lately; and when that was noted (Unix seconds)."""
        if not _is_kept(route, task):
            return "", 0.0
        try:
            async with asyncio.timeout(_LIMIT_S):
                kept = await self._state.get(_key(route, task))
        except (QueueError, TimeoutError) as error:
            log.debug("a session's target is not known", route=route.name, error=str(error) or "no answer")
            return "", 0.0
        return _read(kept)

    async def note(self, route: Route, task: Task, target: str, known: tuple[str, float]) -> None:
        """A target has answered; `known` is what `target_of` said."""
        now = time.time()
        is_fresh = known[0] == target and now - known[1] < _FRESH_SHARE * route.sticky_s
        if not _is_kept(route, task) or is_fresh:
            return
        try:
            async with asyncio.timeout(_LIMIT_S):
                await self._state.set(_key(route, task), f"{now:.0f} {target}".encode(), ttl_s=route.sticky_s)
        except (QueueError, TimeoutError) as error:
            log.debug("a session's target is not noted", route=route.name, error=str(error) or "no answer")


def _is_kept(route: Route, task: Task) -> bool:
    return bool(task.session_id) and route.sticky_s > 0 and len(route.targets) > 1


def _key(route: Route, task: Task) -> str:
    digest = hashlib.blake2b(f"{task.tenant}\0{task.session_id}".encode(), digest_size=12).hexdigest()
    return f"route-session:{route.name}:{digest}"


def _read(kept: bytes | None) -> tuple[str, float]:
    at, _, target = (kept or b"").decode(errors="replace").partition(" ")
    return (target, float(at)) if target and at.isdecimal() else ("", 0.0)
