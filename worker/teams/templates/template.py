"""`Template`: a text with Go's template actions, parsed once and rendered on data."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from worker.teams.errors import TemplateError
from worker.teams.templates.evaluation import Evaluator
from worker.teams.templates.limits import MAX_OUTPUT_CHARS, MAX_STEPS, Limits
from worker.teams.templates.nodes import Tree
from worker.teams.templates.parsing import parse


class Template:
    """A parsed template. It holds no state of a rendering: any number may run at once."""

    def __init__(self, text: str, name: str, tree: Tree) -> None:
        """Use `parse`."""
        self.text = text
        self.name = name
        self._tree = tree

    @classmethod
    def parse(cls, text: str, *, name: str = "template") -> Template:
        """Read a template; `name` is what its errors call it. Raises `TemplateError`."""
        try:
            return cls(text, name, parse(text, name))
        except RecursionError:
            raise TemplateError("the template is nested too deeply", name=name) from None

    def render(
        self,
        data: Mapping[str, Any],
        *,
        max_output_chars: int = MAX_OUTPUT_CHARS,
        max_steps: int = MAX_STEPS,
        limits: Limits | None = None,
    ) -> str:
        """The text for `data`, which is what JSON has. The same data give the same text, always.

        Raises `TemplateError`, also for a text longer than `max_output_chars` and for work beyond `max_steps`.
        Texts that are made for one purpose share their `limits`.
        """
        limits = limits or Limits(max_output_chars=max_output_chars, max_steps=max_steps)
        return Evaluator(self._tree, self.text, self.name, limits).render(data)


@functools.lru_cache(maxsize=512)
def parsed(text: str, name: str = "template") -> Template:
    """As `Template.parse`, kept for the next time. Raises `TemplateError`."""
    return Template.parse(text, name=name)
