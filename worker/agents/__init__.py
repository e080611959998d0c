"""Agents: what they are, which apps they belong to, and which configuration a task runs with."""

from worker.agents.directory import OVERRIDABLE, AgentDirectory, overridden
from worker.agents.model import Agent, App, Group, Llm, Memory, PermissionScope

__all__ = [
    "OVERRIDABLE",
    "Agent",
    "AgentDirectory",
    "App",
    "Group",
    "Llm",
    "Memory",
    "PermissionScope",
    "overridden",
]
