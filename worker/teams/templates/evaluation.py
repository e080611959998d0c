"""Evaluates a parsed template on data. Source: the package documentation of text/template ("Actions" to "Functions").

Data is never called, and nothing of it but map keys and list items is ever reached.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from worker.teams.errors import TemplateError
from worker.teams.templates.functions import FUNCTIONS, Function
from worker.teams.templates.limits import MAX_DEPTH, LimitReached, Limits
from worker.teams.templates.nodes import (
    ActionNode,
    Arg,
    BreakNode,
    ChainArg,
    Command,
    ConstantArg,
    ContinueNode,
    DotArg,
    FieldArg,
    FieldStep,
    FunctionArg,
    IfNode,
    Node,
    Pipe,
    RangeNode,
    TemplateNode,
    TextNode,
    Tree,
    VariableArg,
    WithNode,
)
from worker.teams.templates.positions import error_at
from worker.teams.templates.printing import text_of
from worker.teams.templates.values import (
    NO_VALUE,
    BadValue,
    checked,
    field_of,
    is_nil,
    is_true,
    kind_of,
    sorted_items,
)

_ABSENT: Any = object()
"""No value comes from an earlier stage of the pipeline."""


class _Break(Exception):
    """`{{ break }}`"""


class _Continue(Exception):
    """`{{ continue }}`"""


class Evaluator:
    """One rendering of one template."""

    def __init__(self, tree: Tree, text: str, name: str, limits: Limits) -> None:
        self._tree = tree
        self._text = text
        self._name = name
        self._limits = limits
        self._parts: list[str] = []
        self._chars = 0
        self._depth = 0
        self._at = 0
        self._variables: list[tuple[str, Any]] = []

    def render(self, data: Mapping[str, Any]) -> str:
        """The template's text. Raises `TemplateError`."""
        try:
            self._variables = [("$", data)]
            self._walk(self._tree.body, data)
        except (BadValue, LimitReached) as error:
            raise self._fail(str(error), self._at) from None
        except RecursionError:
            raise self._fail("the template or its data is nested too deeply", self._at) from None
        return "".join(self._parts)

    def _fail(self, reason: str, at: int) -> TemplateError:
        return error_at(self._text, at, reason, self._name)

    def _write(self, text: str) -> None:
        self._chars += len(text)
        if self._chars > self._limits.max_output_chars:
            raise LimitReached(f"the text is longer than {self._limits.max_output_chars} characters: it was stopped")
        self._parts.append(text)

    # Actions

    def _walk(self, nodes: tuple[Node, ...], dot: Any) -> None:
        for node in nodes:
            self._limits.spend()
            self._at = node.at
            if isinstance(node, TextNode):
                self._write(node.text)
            elif isinstance(node, ActionNode):
                self._action(node, dot)
            elif isinstance(node, IfNode | WithNode):
                self._branch(node, dot)
            elif isinstance(node, RangeNode):
                self._range(node, dot)
            elif isinstance(node, TemplateNode):
                self._template(node, dot)
            elif isinstance(node, BreakNode):
                raise _Break
            elif isinstance(node, ContinueNode):
                raise _Continue

    def _action(self, node: ActionNode, dot: Any) -> None:
        value = self._assigned(node.pipe, dot)
        if not node.pipe.variables:
            self._at = node.pipe.at
            self._write(NO_VALUE if is_nil(value) else text_of(value, self._limits))

    def _inside(self, nodes: tuple[Node, ...], dot: Any) -> None:
        """A level deeper, whose variables end with it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise LimitReached(f"templates call each other more than {MAX_DEPTH} levels deep")
        known = len(self._variables)
        try:
            self._walk(nodes, dot)
        finally:
            del self._variables[known:]
            self._depth -= 1

    def _branch(self, node: IfNode | WithNode, dot: Any) -> None:
        known = len(self._variables)
        value = self._assigned(node.pipe, dot)
        if is_true(value):
            self._inside(node.body, value if isinstance(node, WithNode) else dot)
        elif node.otherwise:
            self._inside(node.otherwise, dot)
        del self._variables[known:]

    def _range(self, node: RangeNode, dot: Any) -> None:
        known = len(self._variables)
        value = self._pipe(node.pipe, dot)
        is_empty = True
        for key, item in self._items(value, node.pipe):
            is_empty = False
            self._limits.spend()
            names = node.pipe.variables
            pairs = list(zip(names, (key, item) if len(names) == 2 else (item,), strict=True)) if names else []
            inner = len(self._variables)
            for name, given in pairs:
                self._set(name, given, declares=node.pipe.declares)
            try:
                self._inside(node.body, item)
            except _Continue:
                pass
            except _Break:
                break
            finally:
                del self._variables[inner:]
        if is_empty and node.otherwise:
            self._inside(node.otherwise, dot)
        del self._variables[known:]

    def _items(self, value: Any, pipe: Pipe) -> Iterator[tuple[Any, Any]]:
        self._at = pipe.at
        if is_nil(value):
            return
        if isinstance(value, Mapping):
            self._limits.spend(len(value))
            for key, item in sorted_items(value):
                yield key, checked(item)
        elif isinstance(value, list | tuple):
            for position, item in enumerate(value):
                yield position, checked(item)
        elif isinstance(value, int) and not isinstance(value, bool):
            if len(pipe.variables) > 1:
                raise BadValue("range over an integer takes one variable")
            for number in range(value):
                yield number, number
        else:
            raise BadValue(f"range can't iterate over {kind_of(value)}: it takes a list, a map or an integer")

    def _template(self, node: TemplateNode, dot: Any) -> None:
        body = self._tree.defined.get(node.name)
        if body is None:
            known = ", ".join(sorted(self._tree.defined)) or "none"
            raise self._fail(f"template {node.name!r} is not defined; defined are: {known}", node.at)
        value = None if node.pipe is None else self._assigned(node.pipe, dot)
        outer, self._variables = self._variables, [("$", value)]
        try:
            self._inside(body, value)
        finally:
            self._variables = outer

    # Variables

    def _set(self, name: str, value: Any, *, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        place = self._place(name)
        self._variables[place] = (name, value)

    def _place(self, name: str) -> int:
        for place in range(len(self._variables) - 1, -1, -1):
            if self._variables[place][0] == name:
                return place
        raise BadValue(f"variable {name} is not declared")

    # Pipelines

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        value = _ABSENT
        for command in pipe.commands:
            self._limits.spend()
            value = self._command(command, dot, value)
        return value

    def _assigned(self, pipe: Pipe, dot: Any) -> Any:
        """The value of a pipeline, in its variable too."""
        value = self._pipe(pipe, dot)
        for name in pipe.variables:
            self._set(name, value, declares=pipe.declares)
        return value

    def _command(self, command: Command, dot: Any, final: Any) -> Any:
        first = command.args[0]
        if isinstance(first, FunctionArg):
            return self._call(first, command.args[1:], dot, final)
        value = self._value(first, dot)
        self._at = first.at
        if len(command.args) > 1 or final is not _ABSENT:
            raise BadValue("can't give arguments to what is no function: data is never called")
        return value

    def _value(self, arg: Arg, dot: Any) -> Any:
        self._limits.spend()
        self._at = arg.at
        if isinstance(arg, ConstantArg):
            return arg.value
        if isinstance(arg, DotArg):
            return dot
        if isinstance(arg, FieldArg):
            return self._fields(dot, arg.steps)
        if isinstance(arg, VariableArg):
            return self._fields_or_nothing(self._variables[self._place(arg.name)][1], arg.steps)
        if isinstance(arg, ChainArg):
            return self._chain(arg, dot)
        return self._call(arg, (), dot, _ABSENT)

    def _chain(self, arg: ChainArg, dot: Any) -> Any:
        known = len(self._variables)
        value = self._assigned(arg.pipe, dot)
        del self._variables[known:]
        return self._fields_or_nothing(value, arg.steps)

    def _fields_or_nothing(self, value: Any, steps: tuple[FieldStep, ...]) -> Any:
        """As Go has it: of a variable or a parenthesis that is nil, all fields are nil."""
        return None if value is None else self._fields(value, steps)

    def _fields(self, value: Any, steps: tuple[FieldStep, ...]) -> Any:
        before: Any = None
        for place, step in enumerate(steps):
            self._at = step.at
            self._limits.spend()
            if value is None and place and isinstance(before, Mapping):
                raise BadValue(
                    f"nil pointer evaluating interface {{}}.{step.name}: {_absent(before, steps[place - 1].name)}"
                )
            before, value = value, field_of(value, step.name)
        return value

    def _call(self, name: FunctionArg, args: tuple[Arg, ...], dot: Any, final: Any) -> Any:
        function = FUNCTIONS[name.name]
        self._check_count(function, len(args) + (final is not _ABSENT), name)
        if function.stops_at is not None:
            return self._short_circuit(function.stops_at, args, dot, final)
        values = [self._value(arg, dot) for arg in args]
        if final is not _ABSENT:
            values.append(final)
        self._at = name.at
        self._limits.spend(1 + len(values))
        try:
            return function(self._limits, values)
        except BadValue as error:
            raise self._fail(f"{name.name}: {error}", name.at) from None

    def _short_circuit(self, stops_at: bool, args: tuple[Arg, ...], dot: Any, final: Any) -> Any:
        value = None
        for arg in args:
            value = self._value(arg, dot)
            if is_true(value) is stops_at:
                return value
        return value if final is _ABSENT else final

    def _check_count(self, function: Function, given: int, name: FunctionArg) -> None:
        if given < function.least or (function.most is not None and given > function.most):
            raise self._fail(
                f"wrong number of arguments for {name.name}: it wants {function.wanted}, got {given}", name.at
            )


def _absent(value: Mapping[str, Any], key: str) -> str:
    """Why a map gave nothing for a key."""
    if key in value:
        return f".{key} is null"
    near = difflib.get_close_matches(key[:100], [name[:100] for name in islice(value, 200) if isinstance(name, str)])
    return f"there is no .{key}" + (f"; did you mean {' or '.join(near)}?" if near else "")
