"""What a plugin may do for an agent: what its manifest asks for, as far as the agent's app grants it.

The error texts are AI Studio's.
"""

from __future__ import annotations

from worker.agent_plugins.errors import PluginDenied
from worker.agent_plugins.manifest import STUDIO_SCOPES
from worker.agent_plugins.package import PluginPackage
from worker.agents.model import App, PermissionScope


class Permissions:
    """Of one plugin, for one agent. An agent without an app is an operator's own: it gets all that it asks for."""

    def __init__(self, package: PluginPackage, app: App | None) -> None:
        self._name = package.manifest.name
        self._is_authorised = app is None or bool(app.scopes)
        self.granted = package.scopes if app is None else package.scopes & frozenset(app.scopes)

    def need(self, scope: PermissionScope) -> None:
        """Raises `PluginDenied` if a scope is not granted."""
        if scope in self.granted:
            return
        if not self._is_authorised:
            raise PluginDenied(f"service access not authorized for plugin {self._name}")
        raise PluginDenied(f"insufficient scope: {STUDIO_SCOPES.get(scope, scope.value)} (plugin: {self._name})")
