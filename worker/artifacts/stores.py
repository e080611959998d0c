"""The store of a worker, and those that teams' files name."""

from __future__ import annotations

from worker.artifacts.opening import open_store
from worker.artifacts.store import ArtifactStore
from worker.teams.plan import Team


class Stores:
    """Teams' stores are opened when the first task of the team begins, and kept. Opening one connects to nothing."""

    def __init__(self, own: ArtifactStore | None, *, timeout_s: float) -> None:
        self._own = own
        self._timeout_s = timeout_s
        self._of_teams: dict[str, ArtifactStore] = {}

    def of(self, team: Team | None) -> ArtifactStore | None:
        """Where the files of a team's tasks are kept; None: nowhere. Raises `BadSetting` for a store that cannot be."""
        url = "" if team is None or team.is_foreign else team.artifact_store
        if not url:
            return self._own
        if url not in self._of_teams:
            self._of_teams[url] = open_store(url, timeout_s=self._timeout_s, setting="the team's artifactStore")
        return self._of_teams[url]

    def owner(self, url: str) -> ArtifactStore | None:
        """The store that a file is in; None: none that is known here."""
        known = [store for store in (self._own, *self._of_teams.values()) if store is not None]
        return next((store for store in known if store.owns(url)), None)

    async def aclose(self) -> None:
        """Give up connections."""
        for store in (self._own, *self._of_teams.values()):
            if store is not None:
                await store.aclose()
