"""What a template is made of once it is parsed. `at` is the index of the character that errors point at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Constant = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class ConstantArg:
    """`"text"`, `3`, `true`, `nil`."""

    value: Constant
    at: int
    source: str


@dataclass(frozen=True, slots=True)
class DotArg:
    """`.`"""

    at: int


@dataclass(frozen=True, slots=True)
class FieldStep:
    """`.name` behind something."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class FieldArg:
    """`.a.b`, of the present value."""

    steps: tuple[FieldStep, ...]
    at: int


@dataclass(frozen=True, slots=True)
class VariableArg:
    """`$x.a.b`"""

    name: str
    steps: tuple[FieldStep, ...]
    at: int


@dataclass(frozen=True, slots=True)
class FunctionArg:
    """The name of a function."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class ChainArg:
    """`(pipeline).a.b`; without fields: a parenthesis."""

    pipe: Pipe
    steps: tuple[FieldStep, ...]
    at: int


Arg = ConstantArg | DotArg | FieldArg | VariableArg | FunctionArg | ChainArg


@dataclass(frozen=True, slots=True)
class Command:
    """One stage of a pipeline: a value, or a function with its arguments."""

    args: tuple[Arg, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Pipe:
    """`$x := a | b | c`"""

    commands: tuple[Command, ...]
    at: int
    variables: tuple[str, ...] = ()
    declares: bool = False
    """`:=`; otherwise an assignment to variables that exist."""


@dataclass(frozen=True, slots=True)
class TextNode:
    """Text between actions."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class ActionNode:
    """`{{ pipeline }}`"""

    pipe: Pipe
    at: int


@dataclass(frozen=True, slots=True)
class IfNode:
    """`{{ if }}`"""

    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class WithNode:
    """`{{ with }}`"""

    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class RangeNode:
    """`{{ range }}`"""

    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class BreakNode:
    """`{{ break }}`"""

    at: int


@dataclass(frozen=True, slots=True)
class ContinueNode:
    """`{{ continue }}`"""

    at: int


@dataclass(frozen=True, slots=True)
class TemplateNode:
    """`{{ template "name" pipeline }}`, and the call that a `block` makes."""

    name: str
    pipe: Pipe | None
    at: int


Node = TextNode | ActionNode | IfNode | WithNode | RangeNode | BreakNode | ContinueNode | TemplateNode


@dataclass(frozen=True, slots=True)
class Tree:
    """A template with all that it defines."""

    body: tuple[Node, ...]
    defined: Mapping[str, tuple[Node, ...]]
