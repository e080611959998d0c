"""What templates refer to: steps and inputs that are not there, or not yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from worker.teams.errors import TemplateError
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.graphs import upstream
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.shapes import did_you_mean
from worker.teams.plan import Step, Team
from worker.teams.templates import nodes as go
from worker.teams.templates.parsing import parse
from worker.teams.templates.positions import line_and_column

_OF_STEP = ("output", "rawOutput", "status", "data", "artifacts")
_ROOTS = ("input", "pipeline", "steps")

Reference = tuple[tuple[str, ...], int]
"""The names of a path from the data's root, and the index of its first character."""


def check_references(team: Team, spec: Fields, found: Sequence[Fields], findings: Findings) -> None:
    """Warn of each reference in a team's templates that cannot have a value."""
    before = upstream(team.steps)
    names = [step.name for step in team.steps]
    inputs = {*team.input, *(each.name for each in team.inputs)} if team.inputs else None
    for step, fields in zip(team.steps, found, strict=True):
        known = before[step.name]
        for node, may_be_itself in _templates(fields):
            seen = known | {step.name} if may_be_itself or step.loop is not None else known
            _check(node, names, seen, step, inputs, findings)
    if "output" in spec:
        _check(spec.at("output"), names, frozenset(names), None, inputs, findings)


def _templates(fields: Fields) -> Iterator[tuple[Node, bool]]:
    nodes = [node for key in ("inputs", "inputArtifacts") if key in fields for node in fields.at(key).entries.values()]
    for node in nodes:
        yield node, False
    if "if" in fields:
        yield fields.at("if"), False
    if "loop" in fields:
        yield fields.one("loop").at("condition"), True


def _check(
    node: Node,
    names: Sequence[str],
    seen: Iterable[str],
    step: Step | None,
    inputs: set[str] | None,
    findings: Findings,
) -> None:
    for path, at in references_in(node.text):
        message = _problem(path, names, frozenset(seen), step, inputs)
        if message:
            line, column = node.place(*line_and_column(node.text, at))
            findings.warning(node, message, line=line, column=column)


def _problem(
    path: tuple[str, ...], names: Sequence[str], seen: frozenset[str], step: Step | None, inputs: set[str] | None
) -> str:
    if path[0] not in _ROOTS:
        return f".{path[0]} is never there: templates have .input, .pipeline.input and .steps"
    if path[0] == "steps":
        return _step_problem(path, names, seen, step)
    path = path[1:] if path[0] == "pipeline" else path
    if len(path) > 1 and path[0] == "input" and inputs is not None and path[1] not in inputs:
        return f"input {path[1]!r} is not declared{did_you_mean(path[1], inputs)}"
    return ""


def _step_problem(path: tuple[str, ...], names: Sequence[str], seen: frozenset[str], step: Step | None) -> str:
    if len(path) < 2:
        return ""
    if path[1] not in names:
        return f"there is no step {path[1]!r}{did_you_mean(path[1], names)}"
    if path[1] not in seen and step is not None:
        return f"step {path[1]!r} is not upstream of {step.name!r}: it may not have ended; add it to dependsOn"
    if len(path) > 2 and path[2] not in _OF_STEP:
        return f"steps have no {path[2]!r}: use {', '.join(_OF_STEP)}{did_you_mean(path[2], _OF_STEP)}"
    return ""


def references_in(text: str) -> list[Reference]:
    """The paths from the data's root in a template; none if it cannot be parsed, which has been told already."""
    if "{{" not in text:
        return []
    try:
        tree = parse(text, "template")
    except (TemplateError, RecursionError):
        return []
    found: list[Reference] = []
    _walk(tree.body, found.append, at_root=True)
    for body in tree.defined.values():
        _walk(body, found.append, at_root=False)
    return found


def _walk(nodes: Sequence[go.Node], tell: Callable[[Reference], None], *, at_root: bool) -> None:
    for node in nodes:
        pipe = getattr(node, "pipe", None)
        if pipe is not None:
            _pipe(pipe, tell, at_root=at_root)
        if isinstance(node, go.IfNode | go.WithNode | go.RangeNode):
            _walk(node.body, tell, at_root=at_root and isinstance(node, go.IfNode))
            _walk(node.otherwise, tell, at_root=at_root)


def _pipe(pipe: go.Pipe, tell: Callable[[Reference], None], *, at_root: bool) -> None:
    for command in pipe.commands:
        indexed = _indexed(command, at_root=at_root)
        if indexed is not None:
            tell(indexed)
        for position, arg in enumerate(command.args):
            if indexed is None or position != 1:
                _arg(arg, tell, at_root=at_root)


def _arg(arg: go.Arg, tell: Callable[[Reference], None], *, at_root: bool) -> None:
    if isinstance(arg, go.ChainArg):
        _pipe(arg.pipe, tell, at_root=at_root)
    elif (path := _path(arg, at_root=at_root)) is not None:
        tell((path, arg.at))


def _path(arg: go.Arg, *, at_root: bool) -> tuple[str, ...] | None:
    """`.a.b` where the dot is the root, and `$.a.b`."""
    is_dollar = isinstance(arg, go.VariableArg) and arg.name == "$"
    if (isinstance(arg, go.FieldArg) and at_root) or (isinstance(arg, go.VariableArg) and is_dollar):
        return tuple(step.name for step in arg.steps) or None
    return None


def _indexed(command: go.Command, *, at_root: bool) -> Reference | None:
    """`index .steps "name" …`"""
    if len(command.args) < 3 or not isinstance(command.args[0], go.FunctionArg) or command.args[0].name != "index":
        return None
    base = _path(command.args[1], at_root=at_root)
    names: list[str] = []
    for arg in command.args[2:]:
        if not isinstance(arg, go.ConstantArg) or not isinstance(arg.value, str):
            break
        names.append(arg.value)
    return None if base is None else ((*base, *names), command.args[1].at)
