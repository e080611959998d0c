"""`search_<slug>`: what a model is told of the tool that searches a data source."""

from __future__ import annotations

import hashlib
import re

from providers.messages import ToolSpec
from worker.datasources.model import Datasource

KIND = "datasource"
"""Tools of this kind are given to agents that are bound to the data source, and are chosen by no pattern."""
MOST_RESULTS = 20
_LONGEST_NAME = 64
"""What vendors take."""
_FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")


def tool_name(slug: str) -> str:
    """The tool's name: vendors take no dots, and no more than 64 characters."""
    name = "search_" + _FORBIDDEN.sub("_", slug)
    if name == f"search_{slug}" and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}_{hashlib.sha256(slug.encode()).hexdigest()[:8]}"


def search_spec(source: Datasource) -> ToolSpec:
    """What a model is told of the tool."""
    about = f": {source.description}" if source.description else ""
    return ToolSpec(
        name=tool_name(source.slug),
        description=(
            f"Search the data source {source.title!r}{about}. Returns the passages nearest to the question, each with "
            "its document."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "question": {"type": "string", "minLength": 1, "description": "What to look for, in a few words."},
                "max_results": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_RESULTS,
                    "description": "How many passages. Default 5.",
                },
            },
            "required": ["question"],
        },
        idempotent=True,
        timeout_s=60.0,
        kind=KIND,
    )
