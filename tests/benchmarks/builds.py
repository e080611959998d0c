"""Which build of Shoal the drivers run: the compiled copy that is made for it, or the checkout as it is."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.benchmarks.programs import COMPILED, REPOSITORY

FOLDER = REPOSITORY / ".venv" / "compiled"


def prepare(*, interpreted: bool) -> str:
    """Bring the compiled copy up to date. Returns what is measured, as a sentence for the page.

    Without a compiler, or if nobody wants it, all drivers run the checkout itself.
    """
    os.environ.pop(COMPILED, None)
    if reason := "as asked" if interpreted else _made():
        return f"Shoal is interpreted ({reason})."
    os.environ[COMPILED] = str(FOLDER)
    return 'Shoal is the compiled build, unless a line says "interpreted".'


def _made() -> str:
    """Why there is no compiled copy; empty if there is."""
    tool = str(REPOSITORY / ".build" / "compiled_copy.py")
    made = subprocess.run([sys.executable, tool, str(FOLDER)], check=False, capture_output=True, text=True)
    print((made.stdout or made.stderr).strip(), file=sys.stderr, flush=True)
    return "" if made.returncode == 0 else made.stderr.strip().partition(". ")[0].partition("\n")[0]
