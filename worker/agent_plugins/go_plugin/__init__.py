"""Compiled AI Studio agent plugins, unmodified: hashicorp's go-plugin protocol, with the host's services behind it."""

from worker.agent_plugins.go_plugin.runner import GoPluginRunner

__all__ = ["GoPluginRunner"]
