"""`shoal plugin new`: a package that works, with tests, to begin with."""

from __future__ import annotations

import importlib.resources
import keyword
import re
from pathlib import Path
from string import Template

from worker.agent_plugins.errors import BadPlugin
from worker.objects.slug import slugified
from worker.version import version

_TEMPLATES = "templates"
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "init.py": "$module/__init__.py",
    "plugin.py": "$module/plugin.py",
    "plugin.manifest.json": "$module/plugin.manifest.json",
    "config.schema.json": "$module/config.schema.json",
    "test_plugin.py": "tests/test_$module.py",
}


def write_package(name: str, parent: Path) -> list[Path]:
    """Write a new plugin into the folder `parent/<slug of name>`; returns its files, the folder first.

    Raises `BadPlugin` for a name that nothing can be made of, or a folder that is there already.
    """
    names = names_for(name)
    folder = parent / names["slug"]
    if folder.exists():
        raise BadPlugin(f"{folder} is there already: choose another name, or delete it")
    written = [folder]
    for template, target in _FILES.items():
        path = folder / Template(target).substitute(names)
        path.parent.mkdir(parents=True, exist_ok=True)
        source = importlib.resources.files("worker.agent_plugins").joinpath(_TEMPLATES, f"{template}.txt")
        path.write_text(Template(source.read_text("utf-8")).substitute(names), "utf-8")
        written.append(path)
    return written


def names_for(name: str) -> dict[str, str]:
    """What the parts of a plugin are called. Raises `BadPlugin`."""
    slug = slugified(name).replace(".", "-").replace("_", "-")
    words = re.findall(r"[a-z0-9]+", slug)
    module = "_".join(words)
    if not words or not module[0].isalpha():
        raise BadPlugin(f"{name[:100]!r} is no name for a plugin: begin with a letter, use letters, digits and '-'")
    if keyword.iskeyword(module):
        module += "_agent"
    class_name = "".join(word.capitalize() for word in words)
    return {
        "slug": slug,
        "module": module,
        "title": " ".join(word.capitalize() for word in words),
        "class_name": class_name if class_name.endswith("Agent") else f"{class_name}Agent",
        "version": version(),
    }
