"""What can go wrong with agent plugins.

AgentPluginError
├── BadPlugin               the package itself: manifest, schema or code; fix it, the message names file and field
├── PluginNotFound          no plugin of that id is here
├── BadPluginConfig         an agent's `config` does not fit the plugin's `config.schema.json`
├── PluginStartFailed       `initialize` failed or took too long; the task is tried again
├── OutsideMessage          a service was called while no message is being handled
├── PluginMisuse            a service was called with something that it does not take
├── PluginCrashed           its code has raised something: the attempt failed, and the task is tried again
└── PluginAnsweredError     the plugin itself said that the message cannot be answered: final
PluginDenied (AccessDenied) the plugin may not do that: a scope, or something that its app does not have
"""

from __future__ import annotations

from worker.errors import AccessDenied, AgentUnusable, WorkerError


class AgentPluginError(WorkerError):
    """Root of what goes wrong with agent plugins."""


class BadPlugin(AgentPluginError, AgentUnusable):
    """A plugin's package cannot be used."""


class PluginNotFound(AgentPluginError, AgentUnusable):
    """No plugin of that id is installed here."""


class BadPluginConfig(AgentPluginError, AgentUnusable):
    """The configuration of an agent does not fit its plugin."""


class PluginStartFailed(AgentPluginError):
    """The plugin could not be initialised."""


class OutsideMessage(AgentPluginError):
    """What was asked for belongs to a message, and none is being handled here."""


class PluginMisuse(AgentPluginError, AgentUnusable):
    """The plugin's code uses a service in a way that never works. The message says how to."""


class PluginCrashed(AgentPluginError):
    """The plugin's code has raised something that is its own affair."""


class PluginAnsweredError(AgentPluginError, AgentUnusable):
    """The plugin has ended its answer with an error. It is not tried again."""


class PluginDenied(AccessDenied):
    """The plugin may not do that."""
