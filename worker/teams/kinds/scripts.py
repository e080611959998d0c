"""`options.script`: what the scripted provider answers. A path means a file beside the team's; its content is read into
the plan, so that whoever runs the team has it, on any machine."""

from __future__ import annotations

from typing import Any

from worker.errors import BadSetting
from worker.teams.kinds.documents import Documents
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.yaml_documents import read_documents

_MAX_BYTES = 256 * 1024


def options_of(spec: Fields, documents: Documents) -> dict[str, Any]:
    """An agent's provider options, with the content of the script that they name."""
    options: dict[str, Any] = dict(spec.get("options") or {})
    script = options.get("script")
    if not isinstance(script, str):
        return options
    node = spec.one("options").at("script") if isinstance(spec.get("options"), Fields) else spec.at("options")
    try:
        return {**options, "script": _read(script, documents)}
    except BadSetting as error:
        documents.findings.error(node, f"script {script!r} cannot be read: {error}")
        return options


def _read(script: str, documents: Documents) -> Any:
    """Raises `BadSetting`."""
    path = documents.sources.file(script)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadSetting(f"it is larger than {_MAX_BYTES} bytes")
        text = path.read_bytes().decode()
    except OSError as error:
        raise BadSetting(error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"it is no UTF-8 text (byte {error.start})") from error
    findings = Findings(script)
    found = read_documents(text, findings)
    if findings.has_errors or len(found) != 1:
        raise BadSetting(next((str(each) for each in findings.all()), "it has to be one YAML document"))
    return found[0].plain()
