"""Registered plugins of other processes, as a worker sees them: providers by name, agents' actions as tools."""

from worker.remote_providers.actions import RemoteActions
from worker.remote_providers.directory import RemoteDirectory
from worker.remote_providers.in_use import RemoteProviders
from worker.remote_providers.presence_gate import PresenceGate
from worker.remote_providers.registry import KnownPlugin, Registry

__all__ = ["KnownPlugin", "PresenceGate", "Registry", "RemoteActions", "RemoteDirectory", "RemoteProviders"]
