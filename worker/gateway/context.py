"""What all operations of one gateway share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from queue_backends import Backend
from worker.definitions import Definitions
from worker.live_settings import LiveSettings
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.agents.roster import Roster
    from worker.gateway.chunk_hub import ChunkHub
    from worker.gateway.keys import ApiKeys
    from worker.sessions.store import Sessions


class Gateway(Struct, kw_only=True):
    """Assembled once, by `worker.gateway.assembly`."""

    settings: Settings
    backend: Backend
    live: LiveSettings
    definitions: Definitions
    roster: Roster
    """Which agents there are, declared or from the settings, and who sees them."""
    keys: ApiKeys
    hub: ChunkHub
    """Streams of tasks, shared among all that watch them."""
    sessions: Sessions
