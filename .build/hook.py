"""hatchling's build hook: with it, the wheel holds extension modules of the hot modules beside their sources.

It is off unless somebody asks (`HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 pip install .`). Then pip installs what it needs
(`dependencies` in pyproject.toml) for the time of the build.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.append(str(Path(__file__).parent))  # hatchling loads this file alone

LEVEL = 2
"""The C compiler's -O."""


class CompiledModules(BuildHookInterface[BuilderConfig]):
    """Compiles what pyproject.toml lists under `modules`. An editable install stays as it is: its sources change."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the results put into the wheel. Raises `CannotCompile`, which ends the build."""
        from compiling import compiled, extension_of

        if version == "editable":
            return
        self._kept = ExitStack()
        files = self._kept.enter_context(compiled(Path(self.root), self.config["modules"], level=LEVEL))
        for module, file in files.items():
            build_data["force_include"][str(file)] = extension_of(module)
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder: what was in it is in the wheel now."""
        if version != "editable":
            self._kept.close()
