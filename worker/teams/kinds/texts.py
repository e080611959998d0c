"""Texts that have to be something: a template, a pattern, a JSON schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import jsonschema_rs
import msgspec

from worker.teams.errors import TemplateError
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.shapes import Text
from worker.tools.redaction import mask_url


def check_template(text: str, node: Node, findings: Findings) -> None:
    """An error at its own line and column if the text is no template."""
    if "{{" not in text:
        return
    from worker.teams.templates import parsed  # takes a while to import, and many files have no templates

    try:
        parsed(text, node.path)
    except TemplateError as error:
        line, column = node.place(error.line, error.column)
        findings.error(node, f"the template cannot be read: {error.reason}", line=line, column=column)


def check_pattern(text: str, node: Node, findings: Findings) -> None:
    """An error if the text is no regular expression."""
    from worker.teams.patterns import BadPattern, compiled

    try:
        compiled(text)
    except BadPattern as error:
        findings.error(node, f"{text!r} is no regular expression: {error}")


def check_path(text: str, node: Node, findings: Findings) -> None:
    """An error if the text is neither a JSONPath nor a regular expression."""
    if not text.startswith("$"):
        check_pattern(text, node, findings)


def check_url(text: str, node: Node, findings: Findings) -> None:
    """An error if the text is no address of a web server."""
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        findings.error(node, f"{mask_url(text[:200])!r} is no URL: use http://host/path or https://host/path")


URL = Text(check=check_url, is_required=True, means="an http or https URL")
TEMPLATE = Text(check=check_template, means="a text or a template")
PATTERN = Text(check=check_pattern, is_required=True, means="a regular expression")
PATH = Text(check=check_path, is_required=True, means="a JSONPath such as $.name, or a regular expression")


@dataclass(frozen=True)
class JsonSchema:
    """A JSON Schema: a text with JSON, or a mapping."""

    def read(self, node: Node, findings: Findings) -> dict[str, Any] | None:
        """The schema; an empty text is none."""
        if node.kind == "scalar" and not node.text.strip():
            return None
        schema = node.plain()
        try:
            if isinstance(schema, str):
                schema = msgspec.json.decode(schema)
            if not isinstance(schema, dict):
                findings.error(node, f"it is {node.type_name}: use {self.allowed()}")
                return None
            jsonschema_rs.validator_for(schema, retriever=_refuse_remote, pattern_options=jsonschema_rs.RegexOptions())
        except msgspec.DecodeError as error:
            findings.error(node, f"it is no JSON: {error}: use {self.allowed()}")
            return None
        except (ValueError, RecursionError) as error:  # jsonschema_rs.ValidationError is a ValueError
            findings.error(node, f"it is no JSON Schema: {str(error).partition(chr(10))[0][:300]}")
            return None
        return schema

    def allowed(self) -> str:
        """What fits."""
        return "a JSON Schema, as text or as a mapping"


def _refuse_remote(uri: str) -> NoReturn:
    raise ValueError(f"reference to another document {uri!r}: put the definition under '$defs'")


SCHEMA = JsonSchema()


def check_cron(text: str, node: Node, findings: Findings) -> None:
    """An error if the text is no schedule."""
    from worker.objects.errors import BadObject
    from worker.teams.triggers.schedule import schedule_of

    try:
        schedule_of(text, "UTC")
    except BadObject as error:
        findings.error(node, str(error))


def check_time_zone(text: str, node: Node, findings: Findings) -> None:
    """An error if the text is no name of a time zone."""
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        findings.error(node, f"{text[:100]!r} is no time zone: use a name such as Europe/Berlin")


TIME_ZONE = Text(check=check_time_zone, is_required=True, means="a time zone such as Europe/Berlin")
CRON = Text(check=check_cron, is_required=True, means="five fields such as '0 9 * * 1-5', or a name such as @daily")
