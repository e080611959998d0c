"""The task that a model call of a run is, and what is asked in it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from queue_backends import Task
from queue_backends.messages import JsonObject
from worker.teams.actions import Submit
from worker.teams.checking import semantic_prompt
from worker.teams.child_summary import summary_prompt
from worker.teams.context_policies import compress_prompt
from worker.teams.folding import Folding
from worker.teams.marks import INPUTS, KEYS, Marks
from worker.teams.plan import ContextPolicy, Step
from worker.teams.rendering import rendered, step_prompt, view
from worker.teams.routed import router_input, router_prompt
from worker.teams.run_state import ChildState
from worker.teams.run_trace import step_traceparent
from worker.teams.step_fold import ANSWERING, StepFold
from worker.teams.step_work import step_deadline
from worker.teams.verdicts import deadline_of

NOTHING_GIVEN = "Begin."
"""What a step is asked that has no inputs, in a run that has none."""
_PLAIN = re.compile(r"[A-Za-z0-9._@+-]{1,100}")


class Asked(Struct, frozen=True, kw_only=True):
    """What a task asks, and how."""

    prompt: str
    history: tuple[JsonObject, ...] = ()
    overrides: JsonObject = {}


def task_of(folding: Folding, wanted: Submit) -> Task:
    """The task for a model call that a run needs. Raises `TemplateError`."""
    header, step, fold = folding.header, folding.team.step(wanted.step), folding.steps[wanted.step]
    asked = _asked(folding, step, fold, wanted)
    marks = Marks(
        run=header.id,
        step=step.name,
        plan=header.plan,
        team=folding.team.name,
        role=wanted.role,
        purpose=wanted.purpose,
    )
    deadlines = [each for each in (deadline_of(folding), step_deadline(step, fold)) if each is not None]
    return Task(
        prompt=asked.prompt,
        history=asked.history,
        agent=f"{folding.team.name}.{wanted.role}",
        meta={**fold.picked, **marks.meta(), **_inputs(folding, step, wanted)},
        overrides=asked.overrides,
        tenant=header.tenant,
        deadline=min(deadlines, default=None),
        idempotency_key=key_of(header.id, wanted),
        traceparent=step_traceparent(header, step.name, wanted.iteration),
        tracestate=header.tracestate,
    )


def key_of(run_id: str, wanted: Submit) -> str:
    """Under which a task is submitted: whoever goes on with the run finds it again, and none is submitted twice."""
    return f"{KEYS}{run_id}:{wanted.step}:{wanted.iteration}:{wanted.attempt}:{wanted.purpose}"


def sub_run_id(run_id: str, wanted: Submit) -> str:
    """Of the run that does a step whose role is a team: `<run>.<step>.<iteration>`, and for a further try its number
    behind that."""
    name = wanted.step if _PLAIN.fullmatch(wanted.step) else hashlib.sha256(wanted.step.encode()).hexdigest()[:12]
    again = f".{wanted.attempt}" if wanted.attempt > 1 else ""
    found = f"{run_id}.{name}.{wanted.iteration}{again}"
    return found if len(found) <= 190 else f"run-{hashlib.sha256(found.encode()).hexdigest()[:32]}"


def sub_run_input(folding: Folding, step: Step) -> dict[str, Any]:
    """What such a run is given: the step's inputs, each as text. Raises `TemplateError`."""
    data = view(folding.team, folding.state(), step=step.name)
    return {key: rendered(template, data, f"steps.{step.name}.inputs.{key}") for key, template in step.inputs.items()}


def _asked(folding: Folding, step: Step, fold: StepFold, wanted: Submit) -> Asked:
    said = fold.answer.output if fold.answer is not None else ""
    match wanted.purpose:
        case "check":
            assert step.validation is not None  # noqa: S101 - only then is a check wanted; mypy cannot see that
            return _aside(semantic_prompt(step.validation, said), step.validation.semantic_model)
        case "compress":
            policy = step.context_policy or folding.team.default_context_policy or ContextPolicy()
            return _aside(compress_prompt(policy, said), policy.model)
        case "repair":
            problem = fold.retries[-1].problem if fold.retries else ""
            return _going_on(folding, step, said, _repair_prompt(problem))
        case "summary":
            return _going_on(folding, step, said, summary_prompt(_uncollected(folding, step)))
        case "route":
            state = folding.state()
            overrides = {"system_prompt": router_prompt(folding.team, state), **_place(step)}
            return Asked(prompt=router_input(state), overrides=overrides)
        case _:
            return Asked(prompt=_first_prompt(folding, step, fold), overrides=_place(step))


def _aside(prompt: str, model: str) -> Asked:
    """A question about the work, not the work itself: the role's instructions do not apply to it."""
    return Asked(prompt=prompt, overrides={"system_prompt": "", **({"model": model} if model else {})})


def _going_on(folding: Folding, step: Step, said: str, prompt: str) -> Asked:
    """The next message of the conversation that the step's answer ended."""
    history = (
        {"role": "user", "content": _prompt(folding, step)},
        {"role": "assistant", "content": said or "(no answer)"},
    )
    return Asked(prompt=prompt, history=history, overrides=_place(step))


def _place(step: Step) -> JsonObject:
    named = {"provider": step.provider, "model": step.model}
    return {name: value for name, value in named.items() if value}


def _prompt(folding: Folding, step: Step) -> str:
    text = step_prompt(folding.team, step, folding.state()) + _artifacts(folding, step)
    return text if text.strip() else NOTHING_GIVEN


def _artifacts(folding: Folding, step: Step) -> str:
    """What it is handed over from earlier steps: `<step>.<artifact>`, or a template, for each of its own names."""
    if not step.input_artifacts:
        return ""
    lines = [f"{name}: {value}\n" for name, value in _handed_over(folding, step).items()]
    return f"\nArtifacts:\n{''.join(lines)}"


def _handed_over(folding: Folding, step: Step) -> dict[str, str]:
    data = view(folding.team, folding.state(), step=step.name)
    found: dict[str, str] = {}
    for name, source in step.input_artifacts.items():
        if "{{" in source:
            found[name] = rendered(source, data, f"steps.{step.name}.inputArtifacts.{name}")
        else:
            of, _, artifact = source.partition(".")
            found[name] = folding.steps[of].artifacts.get(artifact, "") if of in folding.steps else ""
    return found


def _inputs(folding: Folding, step: Step, wanted: Submit) -> dict[str, str]:
    """The files that its worker gets for it: those alone that steps of this run have made. A template may say anything,
    and files of others are in the same store."""
    if not step.input_artifacts or wanted.purpose not in ANSWERING:
        return {}
    made = {url for fold in folding.steps.values() for url in fold.artifacts.values()}
    given = {name: url for name, url in _handed_over(folding, step).items() if url in made}
    return {INPUTS: msgspec.json.encode(given).decode()} if given else {}


def _first_prompt(folding: Folding, step: Step, fold: StepFold) -> str:
    rejected = [retry for retry in fold.retries if retry.kind == "retry"]
    text = _prompt(folding, step)
    if rejected and rejected[-1].problem:
        text += f"\nAn earlier answer was rejected: {rejected[-1].problem}\n"
    return text


def _repair_prompt(problem: str) -> str:
    return (
        f"Your answer does not fit the schema that was asked for: {problem}\n"
        "Answer again with the whole corrected JSON, and nothing else."
    )


def _uncollected(folding: Folding, step: Step) -> Sequence[ChildState]:
    return [
        child
        for child in folding.children.values()
        if child.step == step.name and child.depth == 1 and child.task_id not in folding.collected
    ]
