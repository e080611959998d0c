"""Providers in other processes and languages, over MIRASTACK's plugin protocol (JSON on gRPC): used, and served."""

from providers.remote.channel import ChannelOptions
from providers.remote.client import PluginClient, connect
from providers.remote.dialect import Dialect
from providers.remote.instances import RemoteAction, RemoteInstance, Source
from providers.remote.provider import RemoteProvider
from providers.remote.serving import serve, serve_async
from providers.remote.tenants import tenant_id

__all__ = [
    "ChannelOptions",
    "Dialect",
    "PluginClient",
    "RemoteAction",
    "RemoteInstance",
    "RemoteProvider",
    "Source",
    "connect",
    "serve",
    "serve_async",
    "tenant_id",
]
