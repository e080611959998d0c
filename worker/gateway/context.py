"""What all operations of one gateway share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from queue_backends import Backend
from worker.definitions import Definitions
from worker.live_settings import LiveSettings
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.agent_plugins.registry import AgentPlugins
    from worker.agents.declarations import Declarations
    from worker.agents.roster import Roster
    from worker.artifacts import ArtifactStore
    from worker.datasources.datasources import Datasources
    from worker.gateway.approval_desk import ApprovalDesk
    from worker.gateway.callbacks import Callbacks
    from worker.gateway.chunk_hub import ChunkHub
    from worker.gateway.ingress.model_access import ModelAccess
    from worker.gateway.keys import ApiKeys
    from worker.gateway.oidc import Oidc
    from worker.gateway.ops.room import OpsRoom
    from worker.gateway.run_changes import RunChanges
    from worker.gateway.run_hub import RunHub
    from worker.gateway.trigger_desk import TriggerDesk
    from worker.sessions.store import Sessions
    from worker.sessions.watch import ChatWatch
    from worker.teams.notify.service import Notifications
    from worker.teams.runs import Runs


class Gateway(Struct, kw_only=True):
    """Assembled once, by `worker.gateway.assembly`."""

    settings: Settings
    backend: Backend
    live: LiveSettings
    definitions: Definitions
    declarations: Declarations
    """What is done to agents, apps, models and groups, with all checks."""
    roster: Roster
    """Which agents there are, declared or from the settings, and who sees them."""
    plugins: AgentPlugins
    """Agent plugins that are installed here."""
    keys: ApiKeys
    oidc: Oidc | None = None
    """Reads tokens of the issuer in the settings; None: there is none."""
    hub: ChunkHub
    """Streams of tasks, shared among all that watch them."""
    model_access: ModelAccess
    """Models, as far as the gateway itself calls them."""
    callbacks: Callbacks
    """Whom to tell that a task has ended."""
    datasources: Datasources
    """Texts that are searched by meaning."""
    sessions: Sessions
    chats: ChatWatch
    """Tells of what changes in sessions' conversations."""
    notifications: Notifications
    """Who is told when runs end and budgets run out."""
    trigger_desk: TriggerDesk
    """What fires triggers, and who may."""
    approvals: ApprovalDesk
    """Questions that runs put to people."""
    ops: OpsRoom
    """What operators see of the fleet, sampled and told to all who watch."""
    runs: Runs
    """Runs of teams."""
    run_hub: RunHub
    """Runs, told to all who watch them."""
    run_changes: RunChanges
    """Lists of runs, shared among all who watch them."""
    artifacts: ArtifactStore | None = None
    """Files that tasks have made; None: nobody said where they are."""
