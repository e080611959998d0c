"""The functions that templates can call. Each checks what it is given; none touches anything but its arguments."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from worker.teams.templates.limits import Limits
from worker.teams.templates.values import BadValue, is_nil, kind_of

Body = Callable[..., Any]
BodyT = TypeVar("BodyT", bound=Body)
Check = Callable[[Any], Any]
"""Takes an argument, answers it as the function wants it, raises `BadValue`."""

FUNCTIONS: dict[str, Function] = {}


class Function:
    """A function with the kinds of its arguments."""

    def __init__(self, name: str, body: Body, kinds: Sequence[Check], optional: int, rest: Check | None) -> None:
        self.name = name
        self._body = body
        self._kinds = tuple(kinds)
        self._rest = rest
        self.least = len(self._kinds) - optional
        self.most = None if rest else len(self._kinds)
        self.stops_at: bool | None = None
        """`and`, `or`: the truth of the first argument that decides; later ones are not evaluated."""

    @property
    def wanted(self) -> str:
        """How many arguments, in words."""
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"

    def __call__(self, limits: Limits, args: Sequence[Any]) -> Any:
        """The value. Raises `BadValue` and `LimitReached`."""
        return self._body(limits, *(self._checked(position, value) for position, value in enumerate(args)))

    def _checked(self, position: int, value: Any) -> Any:
        check = self._kinds[position] if position < len(self._kinds) else self._rest
        if check is None:
            raise BadValue("too many arguments")
        try:
            return check(value)
        except BadValue as error:
            raise BadValue(f"argument {position + 1}: {error}") from None


def function(
    *names: str, kinds: Sequence[Check] = (), optional: int = 0, rest: Check | None = None
) -> Callable[[BodyT], BodyT]:
    """Registers a function under its names. `kinds` check its arguments, of which the last `optional` may be missing;
    `rest` checks all further ones."""

    def register(body: BodyT) -> BodyT:
        for name in names:
            FUNCTIONS[name] = Function(name, body, kinds, optional, rest)
        return body

    return register


def near_matches(name: str) -> str:
    """A hint for a name that there is not."""
    from worker.teams.templates.functions.absent import ABSENT

    if name in ABSENT:
        return f": {ABSENT[name]}"
    near = difflib.get_close_matches(name[:100], FUNCTIONS, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else "; docs/templates.md lists the functions"


def anything(value: Any) -> Any:
    """No check."""
    return value


def text(value: Any) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    if is_nil(value):
        raise BadValue('invalid value; expected string (give it a default: `default "" …`)')
    raise BadValue(f"wrong type for value; expected string; got {kind_of(value)} (use toString)")


def whole(value: Any) -> int:
    """An integer, or a float without a fraction: JSON has one kind of number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    raise BadValue(f"expected an integer; got {kind_of(value)}")


def items(value: Any) -> list[Any]:
    """A list."""
    if isinstance(value, list):
        return value
    if isinstance(value, tuple):
        return list(value)
    raise BadValue(f"expected a list; got {kind_of(value)}")


def mapping(value: Any) -> dict[str, Any]:
    """A map."""
    if isinstance(value, dict):
        return value
    raise BadValue(f"expected a map; got {kind_of(value)}")
