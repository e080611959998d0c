"""The gate before calls to remote providers: while no process of one is well, its tasks give their slots back."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from providers.tool_loop import TurnRecord
from queue_backends import UsageRecord
from worker.call_gates import ModelCallIntent
from worker.errors import Postponed
from worker.remote_providers.in_use import RemoteProviders

_LEAST_POSTPONED_S = 1.0
_MOST_POSTPONED_S = 30.0
_SHARE = 0.25
"""Of the time that a provider has been away: so long until a task that waits for it looks again."""


class PresenceGate:
    """Lets calls through to whom somebody may take them. It reserves nothing."""

    def __init__(
        self,
        remote: RemoteProviders,
        *,
        clock: Callable[[], float] = time.monotonic,
        random_: Callable[[], float] = random.random,
    ) -> None:
        self._remote = remote
        self._clock = clock
        self._random = random_
        self._revision = -1
        self._since: Mapping[str, float] = {}
        """Providers of which not every process is well, or none is there -> since when that is known here."""

    @property
    def active(self) -> bool:
        """Whether any remote provider is not quite well."""
        return bool(self._unwell())

    async def enter(self, intent: ModelCallIntent) -> None:
        """Raises `Postponed` if nobody takes calls of the provider at present."""
        since = self._unwell().get(intent.provider)
        if since is None or not (why := self._remote.why_away(intent.provider, intent.task.tenant)):
            return
        wait_s = min(max((self._clock() - since) * _SHARE, _LEAST_POSTPONED_S), _MOST_POSTPONED_S)
        raise Postponed(why, retry_in_s=wait_s * (1 + self._random() / 2))  # not all at once

    async def leave(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Nothing was reserved."""

    def note(self, intent: ModelCallIntent, record: TurnRecord, usage: UsageRecord) -> None:
        """Nothing was reserved."""

    def abandon(self, intent: ModelCallIntent) -> None:
        """Nothing was reserved."""

    def _unwell(self) -> Mapping[str, float]:
        directory = self._remote.directory
        if self._revision != directory.revision:  # else it would be found out anew for each call
            self._revision, now = directory.revision, self._clock()
            self._since = {
                name: self._since.get(name, now)
                for name in self._remote.names()
                if not (found := directory.instances(name)) or not all(each.healthy for each in found)
            }
        return self._since
