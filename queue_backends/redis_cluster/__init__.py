"""`redis+cluster://` and `rediss+cluster://`: queue, chunks and state on a Redis or Valkey cluster."""

from queue_backends.redis_cluster.backend import ClusterBackend, open_backend

__all__ = ["ClusterBackend", "open_backend"]
