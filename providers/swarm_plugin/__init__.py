"""A kubeswarm LLM plugin as a provider: `SWARM_PLUGIN_LLM_ADDR`, or an agent with `provider: grpc`."""

from providers.swarm_plugin.provider import SwarmPluginProvider

__all__ = ["SwarmPluginProvider"]
