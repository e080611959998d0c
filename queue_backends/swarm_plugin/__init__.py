"""kubeswarm's plugin protocol `swarm.plugin.v1`: its messages, and a queue behind it (`grpc://host:port`)."""

from queue_backends.swarm_plugin.backend import SwarmBackend, open_backend

__all__ = ["SwarmBackend", "open_backend"]
