"""Why an agent, or something of it, is not to be had.

AccessDenied (worker.errors)
├── AgentInactive     it, or its app, is switched off: activate it
├── OtherNamespace    it belongs to another tenant
├── OtherApp          the key is an app's, and the agent belongs to another one
├── NotInGroup        it is for access groups that the caller is not in
└── OutsideApp        its app has no such model, route, tool or data source
"""

from __future__ import annotations

from worker.errors import AccessDenied


class AgentInactive(AccessDenied):
    """The agent, or the app that it belongs to, is switched off."""


class OtherNamespace(AccessDenied):
    """The agent belongs to another tenant than the caller."""


class OtherApp(AccessDenied):
    """The caller's key is an app's, and the agent belongs to another one, or to none."""


class NotInGroup(AccessDenied):
    """The agent names access groups, and the caller is in none of them."""


class OutsideApp(AccessDenied):
    """What was asked for is nothing that the agent's app has."""
