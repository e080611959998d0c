"""The tools of the compiled build lie in a folder that is no package."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / ".build"))
