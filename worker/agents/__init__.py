"""Agents: what they are, which apps they belong to, and which configuration a task runs with."""

from worker.agents.directory import AgentDirectory, overridden
from worker.agents.fence import OVERRIDABLE
from worker.agents.model import Agent, App, Group, Llm, Memory, PermissionScope
from worker.agents.resolved import ResolvedAgent
from worker.agents.roster import Roster

__all__ = [
    "OVERRIDABLE",
    "Agent",
    "AgentDirectory",
    "App",
    "Group",
    "Llm",
    "Memory",
    "PermissionScope",
    "ResolvedAgent",
    "Roster",
    "overridden",
]
