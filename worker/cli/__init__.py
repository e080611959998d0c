"""The `shoal` command. Nothing here imports more than the command that runs needs."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and end the process with its exit code."""
    from worker.cli.app import run  # so that `import worker.cli` costs nothing

    sys.exit(run(sys.argv[1:]))
