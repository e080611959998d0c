"""What all runs of a worker share, and what bounds each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from providers.pricing import PriceBook
from queue_backends import Backend
from worker.agent_plugins.instances import AgentPluginHost
from worker.agents import AgentDirectory
from worker.approvals.tool_approvals import ToolApprovals
from worker.call_estimates import CallEstimates
from worker.call_gates import CallGate
from worker.datasources.datasources import Datasources
from worker.journal import Journal
from worker.metrics import Metrics
from worker.providers_in_use import ProvidersInUse
from worker.retries import RetryPolicy
from worker.routing.routing import Routing
from worker.sessions.conversations import Conversations
from worker.streaming import ChunkPublisher
from worker.teams.team_work import TeamWork
from worker.telemetry import Telemetry
from worker.tools.catalogue import ToolCatalogue
from worker.tools.outputs import OutputStore
from worker.usage import UsageLedger

if TYPE_CHECKING:
    from worker.artifacts.artifacts import Artifacts
    from worker.loop_policy.policies import LoopPolicies


class Limits(Struct, frozen=True, kw_only=True):
    """What bounds a run."""

    timeout_s: float = 120.0
    """For one attempt."""
    max_deliveries: int = 3
    """A task whose worker died this often is given up."""
    drop_stale: bool = False
    """ark: give up a task that has waited longer than `timeout_s`."""


class Surroundings(Struct, frozen=True, kw_only=True):
    """What all runs of a worker share."""

    backend: Backend
    publisher: ChunkPublisher
    agents: AgentDirectory
    providers: ProvidersInUse
    tools: ToolCatalogue
    journal: Journal
    ledger: UsageLedger
    prices: PriceBook
    routing: Routing
    metrics: Metrics
    telemetry: Telemetry
    retries: RetryPolicy
    limits: Limits
    gates: tuple[CallGate, ...] = ()
    """What each model call has to pass, in this order."""
    estimates: CallEstimates = field(default_factory=CallEstimates)
    datasources: Datasources | None = None
    """None: there are none to search."""
    agent_plugins: AgentPluginHost | None = None
    """None: agents that are plugins cannot be run."""
    conversations: Conversations | None = None
    """None: runs know nothing of what was said before, and nothing of them is kept."""
    outputs: OutputStore | None = None
    """None: long tool outputs are cut, and the rest is lost."""
    teams: TeamWork | None = None
    """None: tasks of teams cannot be run, and no task can make others."""
    approvals: ToolApprovals | None = None
    """None: nobody can be asked, and no call waits for anybody."""
    loop_policies: LoopPolicies | None = None
    """None: runs have none."""
    artifacts: Artifacts | None = None
    """None: files that tasks make are not kept."""
    team: str = ""
    role: str = ""
