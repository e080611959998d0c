"""The gRPC libraries, imported when the first connection is made: they take 0.2 s, and most installations need none."""

from __future__ import annotations

import importlib
import os
from typing import Any

from providers.errors import ProviderError

INSTALL = "pip install 'shoal[grpc]'"


def grpc_library(name: str = "grpc.aio") -> Any:
    """The module of that name. Raises `ProviderError` if it is not installed."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # else its core writes to stderr what we say ourselves
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "grpclib" if name.startswith("grpclib") else "grpcio"
        raise ProviderError(f"remote providers need {package}, which is not installed: {INSTALL}") from error
