"""`shoal init`: a folder with a team that runs at once."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from string import Template

from worker.objects.slug import slugified
from worker.teams.errors import TeamError

_FILES = {
    "quickstart.yaml": "quickstart.yaml",
    "env.example": ".env.example",
    "docker-compose.yml": "docker-compose.yml",
    "gitignore": ".gitignore",
}


def write_project(folder: Path) -> list[Path]:
    """Write a new project; returns its files. Raises `TeamError` for a folder that is there already, that cannot be
    written, or whose name a team cannot have."""
    if folder.exists():
        raise TeamError(f'directory "{folder}" already exists')
    slug = slugified(folder.name).replace(".", "-").replace("_", "-").strip("-")
    if not slug:
        raise TeamError(f"{folder.name!r} is no name for a project: use letters, digits and '-'")
    try:
        return [_write(template, folder / name, slug) for template, name in _FILES.items()]
    except OSError as error:
        raise TeamError(f"cannot write {folder}: {error.strerror}") from error


def _write(template: str, path: Path, slug: str) -> Path:
    text = importlib.resources.files("worker.teams.project").joinpath(f"{template}.txt").read_text("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(text).safe_substitute(slug=slug), "utf-8")
    return path
