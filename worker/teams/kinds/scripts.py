"""`options.script`: what the scripted provider answers. A path means a file beside the team's; its content is read into
the plan, so that whoever runs the team has it, on any machine."""

from __future__ import annotations

from typing import Any

import msgspec

from worker.teams.kinds.documents import Documents
from worker.teams.kinds.objects import Fields

_MAX_BYTES = 256 * 1024


def options_of(spec: Fields, documents: Documents) -> dict[str, Any]:
    """An agent's provider options, with the content of the script that they name."""
    options: dict[str, Any] = dict(spec.get("options") or {})
    script = options.get("script")
    if not isinstance(script, str):
        return options
    node = spec.one("options").at("script") if isinstance(spec.get("options"), Fields) else spec.at("options")
    folder = documents.sources.beside.resolve()
    path = (folder / script).resolve()
    if not path.is_relative_to(folder):
        documents.findings.error(node, f"script {script!r} is outside of the file's folder: move it there")
        return options
    try:
        if path.stat().st_size > _MAX_BYTES:
            documents.findings.error(node, f"script {script!r} is larger than {_MAX_BYTES} bytes")
            return options
        found = msgspec.yaml.decode(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        documents.findings.error(node, f"script {script!r} cannot be read: {error}")
        return options
    return {**options, "script": found}
