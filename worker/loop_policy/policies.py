"""What the loop policies of a worker share, and how a run gets its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from queue_backends import StateStore
from worker.errors import BadSetting
from worker.loop_policy.figures import Figures
from worker.loop_policy.harmless import Rests
from worker.loop_policy.model import LoopPolicy
from worker.loop_policy.places import FindingSettings, place_at
from worker.loop_policy.windows import Windows
from worker.teams.memory.vector_collections import VectorCollections
from worker.teams.plan import MemorySpec
from worker.tools.catalogue import ToolCatalogue

if TYPE_CHECKING:
    from worker.datasources.embeddings import Embeddings
    from worker.providers_in_use import ProvidersInUse

MOST_KNOWN = 100
"""Sets of tools that are kept for policies."""

log = structlog.get_logger(__name__)


class LoopPolicies:
    """Of one worker. Use it with `aclose`."""

    def __init__(
        self,
        state: StateStore,
        embeddings: Embeddings,
        providers: ProvidersInUse,
        figures: Figures,
        settings: FindingSettings,
        *,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.settings = settings
        self.figures = figures
        self.windows = Windows(providers)
        self.rests = Rests()
        self.collections = VectorCollections(state, embeddings, environ=environ)
        self._environ = environ
        self._catalogues: dict[int, tuple[LoopPolicy, ToolCatalogue]] = {}
        self._place: tuple[MemorySpec | None] | None = None

    def place(self) -> MemorySpec | None:
        """Where findings are kept that have no place of their own; None if the setting names no store that there is."""
        if self._place is None:
            try:
                self._place = (place_at(self.settings.url, self._environ),)
            except BadSetting as error:
                log.warning("tools' findings are neither kept nor recalled", reason=str(error))
                self._place = (None,)
        return self._place[0]

    def catalogue(self, policy: LoopPolicy) -> ToolCatalogue:
        """The tools that a policy brings."""
        known = self._catalogues.get(id(policy))
        if known is None:
            from worker.loop_policy.consult import Consult
            from worker.loop_policy.sandbox_recall import SandboxRecall

            if len(self._catalogues) >= MOST_KNOWN:
                self._catalogues.clear()
            recall = [SandboxRecall()] if policy.sandbox is not None else []
            made = ToolCatalogue(tools=[*recall, *map(Consult, policy.advisors)])
            known = self._catalogues[id(policy)] = (policy, made)
        return known[1]

    async def aclose(self) -> None:
        """Give up the stores of findings."""
        await self.collections.aclose()
