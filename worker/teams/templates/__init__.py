"""Go's text/template language, as team files use it: evaluated on data alone, within limits."""

from worker.teams.templates.limits import MAX_OUTPUT_CHARS, MAX_STEPS, Limits
from worker.teams.templates.template import Template, parsed
from worker.teams.templates.values import NO_VALUE, Nothing, Texts

__all__ = ["MAX_OUTPUT_CHARS", "MAX_STEPS", "NO_VALUE", "Limits", "Nothing", "Template", "Texts", "parsed"]
