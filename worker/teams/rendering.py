"""A run's texts, made from its templates: prompts, conditions, the output. Facts: kubeswarm `pkg/flow/template.go`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from queue_backends.messages import encode_json
from worker.teams.context_policies import truncated, wrapped
from worker.teams.plan import Step, Team
from worker.teams.run_state import RunState, StepState
from worker.teams.templates import NO_VALUE, Limits, Nothing, Texts, parsed

_FALSE = frozenset({"", "false", "0", "no", NO_VALUE, "<nil>"})


def is_truthy(text: str) -> bool:
    """Whether a condition's text means yes: it is not empty, `false`, `0` or `no`, in any case, nor a missing value."""
    return text.strip().lower() not in _FALSE


def view(team: Team, state: RunState, *, step: str = "") -> dict[str, Any]:
    """The data of templates: `.input`, `.pipeline.input`, `.steps`.

    `step` is the one whose template it is for: of an output under the team's default context policy, the steps that
    directly follow see all, and so does the run's own output, for which `step` is empty.
    That output has the texts as they are: tags are for models.
    """
    given = Texts(state.input)
    whole = _seen_whole(team, step)
    is_wrapped = team.wraps_outputs and bool(step)
    return {
        "input": given,
        "pipeline": {"input": given},
        "steps": {
            found.name: _step_view(team, found, is_whole=found.name in whole, is_wrapped=is_wrapped)
            for found in state.steps
        },
    }


def _seen_whole(team: Team, consumer: str) -> frozenset[str]:
    """Steps whose whole output the consumer sees, though the default policy shortens it for others. Source: kubeswarm
    `pkg/flow/dag.go`: those it depends on, or else the one before it."""
    if team.default_context_policy is None:
        return frozenset()
    producers = [step.name for step in team.steps if step.context_policy is None]
    if not consumer:
        return frozenset(producers)
    names = [step.name for step in team.steps]
    place = names.index(consumer) if consumer in names else 0
    adjacent = (team.steps[place].depends_on or tuple(names[max(0, place - 1) : place])) if names else ()
    return frozenset(adjacent).intersection(producers)


def _step_view(team: Team, step: StepState, *, is_whole: bool, is_wrapped: bool) -> dict[str, Any]:
    output = step.output
    if is_whole and step.raw_output and step.name in {found.name for found in team.steps}:
        output = truncated(step.raw_output, team.step(step.name).max_output_bytes)
    return {
        "output": wrapped(step.name, output) if is_wrapped else output,
        "rawOutput": step.raw_output or step.output,
        "status": str(step.phase),
        "data": Nothing() if step.data is None else step.data,
        "artifacts": Texts(step.artifacts),
    }


def rendered(text: str, data: Mapping[str, Any], name: str, limits: Limits | None = None) -> str:
    """A template's text. Raises `TemplateError` under that name."""
    return parsed(text, name).render(data, limits=limits)


def condition_holds(text: str, team: Team, state: RunState, *, step: str, field: str = "if") -> bool:
    """Whether the condition of a step is true: its `if`, or `loop.condition`. Raises `TemplateError`."""
    return is_truthy(rendered(text, view(team, state, step=step), f"steps.{step}.{field}"))


def step_prompt(team: Team, step: Step, state: RunState) -> str:
    """What the step's agent is asked: its inputs as `key: value` lines in the file's order, then its schema.

    Raises `TemplateError`, named as `steps.summarize.inputs.topic`.
    """
    data = view(team, state, step=step.name)
    if not step.inputs:
        return given_text(state.input) + _schema_text(step)
    limits = Limits()
    lines = [
        f"{key}: {rendered(template, data, f'steps.{step.name}.inputs.{key}', limits)}\n"
        for key, template in step.inputs.items()
    ]
    return "".join(lines) + _schema_text(step)


def given_text(given: Mapping[str, Any]) -> str:
    """What a run was given, as the prompt of a step that has no inputs of its own, such as the entry role of a dynamic
    team: one text as it is, anything else as `key: value` lines."""
    values = [value if isinstance(value, str) else encode_json(value).decode() for value in given.values()]
    if len(values) == 1:
        return values[0]
    return "".join(f"{key}: {value}\n" for key, value in zip(given, values, strict=True))


def _schema_text(step: Step) -> str:
    if step.output_schema is None:
        return ""
    schema = encode_json(step.output_schema).decode()
    return f"\nRespond with valid JSON matching this schema:\n{schema}\n"


def render_output(team: Team, state: RunState) -> str:
    """The run's output: the team's template, else the outputs of the steps that nothing depends on.

    Raises `TemplateError`, named `output`.
    """
    if team.output:
        return rendered(team.output, view(team, state), "output")
    inner = {needed for step in team.steps for needed in step.depends_on}
    whole = _seen_whole(team, "")
    outputs = [
        (found.raw_output if step.name in whole else "") or found.output
        for step in team.steps
        if step.name not in inner and (found := state.step(step.name)).output
    ]
    return "\n\n".join(outputs)
