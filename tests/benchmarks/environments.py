"""Each peer's own virtual environment, made when it is first needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "arq": ("arq==0.28.*", "redis[hiredis]<6"),
    "dramatiq": ("dramatiq[redis]==2.2.*", "hiredis"),
    "saq": ("saq[redis,hiredis]==0.26.*", "typing_extensions"),  # saq imports it without declaring it
    "streaq": ("streaq==7.2.*",),
    "taskiq": ("taskiq==0.13.*", "taskiq-redis==1.2.*", "hiredis"),
}


def cache_folder() -> Path:
    """Where environments are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "shoal-bench" / "venvs"


def python_of(peer: str) -> Path:
    """The peer's interpreter; its environment is installed first if its requirements are not there yet.

    Raises `RuntimeError` with pip's last lines if they cannot be installed.
    """
    folder = cache_folder() / peer
    python = folder / "bin" / "python"
    wanted = "\n".join(REQUIREMENTS[peer])
    mark = folder / "requirements.txt"
    if not mark.exists() or mark.read_text() != wanted:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[peer]])
        mark.write_text(wanted)
    return python


def installed_version(peer: str, python: Path) -> str:
    """The peer's version as its environment has it."""
    code = f"from importlib.metadata import version; print(version({peer!r}))"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {' / '.join(done.stderr.strip().splitlines()[-3:])}")
