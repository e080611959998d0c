"""The protocol's own generated code, made by protoc from the published shape: what real peers speak."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import queue_backends.swarm_plugin
from providers import register
from providers.scripted import ScriptedProvider
from providers.swarm_plugin import SwarmPluginProvider
from queue_backends import register_backend
from queue_backends.swarm_plugin import open_backend

PROTO = Path(queue_backends.swarm_plugin.__file__).parent / "plugin.proto"


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The messages, as Google's protobuf has them."""
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("generated")
    assert protoc.main(["protoc", f"-I{PROTO.parent}", f"--python_out={folder}", str(PROTO)]) == 0
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("plugin_pb2")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("plugin_pb2", None)


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_backend("grpc", open_backend)
    register("grpc", SwarmPluginProvider)
    register("scripted", ScriptedProvider)
