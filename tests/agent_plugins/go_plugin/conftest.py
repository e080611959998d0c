"""A folder with a compiled plugin, as far as its host can tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.agent_plugins.plugin_folders import manifest

HERE = Path(__file__).parent
PROTOS = ("plugin.proto", "management.proto")

MakePlugin = Callable[..., Path]


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The protocols' messages by Google's protobuf, as modules in a folder."""
    from grpc_tools import protoc

    folder = tmp_path_factory.mktemp("generated")
    for name in PROTOS:
        assert (
            protoc.main(["protoc", f"-I{HERE / 'protos'}", f"--python_out={folder}", str(HERE / "protos" / name)]) == 0
        )
    return folder


@pytest.fixture
def go_plugin(plugins_dir: Path, generated: Path) -> MakePlugin:
    """Writes the plugin `test-agent`, whose program is the peer's, or a shell script: `go_plugin(script="…", …)`."""

    def make(*, script: str = "", schema: dict[str, Any] | None = None, **fields: Any) -> Path:
        folder = plugins_dir / "test-agent"
        folder.mkdir()
        lines = ["import sys", f"sys.path.insert(0, {str(HERE)!r})", "import peer", f"peer.main({str(generated)!r})"]
        text = "\n".join([f"#!{sys.executable}", *lines, ""])
        program = folder / "agent"
        program.write_text(f"#!/bin/sh\n{script}\n" if script else text)
        program.chmod(0o755)
        (folder / "plugin.manifest.json").write_text(json.dumps(manifest(command="agent", **fields)))
        if schema is not None:
            (folder / "config.schema.json").write_text(json.dumps(schema))
        return folder

    return make
