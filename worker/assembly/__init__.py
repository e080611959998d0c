"""Where everything is put together: from settings to a running worker."""

from worker.assembly.backends import open_backends, same_server
from worker.assembly.running import open_worker, run_worker, settle_memory

__all__ = ["open_backends", "open_worker", "run_worker", "same_server", "settle_memory"]
