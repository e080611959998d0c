"""`embedded://[folder]`: a queue that lasts, for one machine, with nothing to install or to run beside it.

The first process that opens a folder starts the bundled Valkey server over it, on a private Unix socket; all others
share that server; it ends with its last user.
"""

from queue_backends.embedded.backend import EmbeddedBackend, open_backend
from queue_backends.embedded.folder import ServerFolder
from queue_backends.embedded.server import EmbeddedServer

__all__ = ["EmbeddedBackend", "EmbeddedServer", "ServerFolder", "open_backend"]
