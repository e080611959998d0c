"""How much a template may do. What goes beyond is an error of the template, never a hanging or swollen process."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_TEMPLATE_CHARS = 1_048_576
MAX_TOKENS = 50_000
MAX_NESTING = 50
"""Of actions and parentheses within each other."""
MAX_DEPTH = 60
"""Of templates that call templates, with what they are nested in."""
MAX_DATA_DEPTH = 60
"""Of maps and lists within each other, where they are printed or compared."""
MAX_OUTPUT_CHARS = 1_048_576
MAX_STEPS = 100_000
"""Of which each may take some microseconds, in which the event loop does nothing else."""
_CHARS_A_STEP = 256
"""Handling so many characters counts as one more step."""
_SINGLE_CHARS_A_STEP = 8
"""The same, where each character is looked at by itself."""


class LimitReached(Exception):
    """The template does too much. The evaluator adds the position."""


@dataclass(slots=True)
class Limits:
    """What one rendering may do, or several together, and what they have done so far."""

    max_output_chars: int = MAX_OUTPUT_CHARS
    max_steps: int = MAX_STEPS
    steps: int = field(default=0, init=False)

    def spend(self, steps: int = 1) -> None:
        """Count work. Raises `LimitReached`."""
        self.steps += steps
        if self.steps > self.max_steps:
            raise LimitReached(f"the template takes more than {self.max_steps} steps: it was stopped")

    def look_through(self, chars: int) -> None:
        """Count a text that is gone through character by character. Raises `LimitReached`."""
        self.spend(1 + chars // _SINGLE_CHARS_A_STEP)

    def read(self, chars: int) -> None:
        """Count a text that is looked at, however long it is. Raises `LimitReached`."""
        self.spend(1 + chars // _CHARS_A_STEP)

    def handle(self, chars: int) -> None:
        """Count a text that is made, before it is, if it may be several times as long as what it is made of. Raises
        `LimitReached`."""
        if chars > self.max_output_chars:
            raise LimitReached(
                f"a text of {chars} characters is too long: at most {self.max_output_chars} are allowed",
            )
        self.spend(1 + chars // _CHARS_A_STEP)
