"""What a pipeline has to come to, by a simpler way than the scheduler's: one step after the other, no log, no queue."""

from __future__ import annotations

import hashlib
import json

from msgspec import Struct

from worker.teams.plan import Loop, Plan, Role, Step, Team, Validation


class Node(Struct, frozen=True):
    """A step, and how its model behaves."""

    needs: tuple[int, ...] = ()
    condition: str = ""
    """`""`, `"no"`, or `"yes-of"`: it runs only if the first step that it needs said yes."""
    iterations: int = 1
    """So often its model says `more`; the loop allows `most`."""
    most: int = 0
    """0: no loop."""
    bad_tries: int = 0
    """So many answers of each iteration do not pass its validation."""
    retries: int = -1
    """-1: no validation."""
    bad_json: frozenset[int] = frozenset()
    """Which answers of each iteration are no JSON, counted from 1."""
    wants_json: bool = False
    fails: bool = False
    says_yes: bool = True


def plan_of(nodes: list[Node]) -> Plan:
    """The plan that a team file with these steps gives."""
    steps = tuple(_step(number, node) for number, node in enumerate(nodes))
    roles = tuple(Role(name=f"role{number % 3}") for number in range(len(nodes)))
    team = Team(name="random", roles=roles, steps=steps, wraps_outputs=False)
    return Plan(name="random", teams=(team,))


def _step(number: int, node: Node) -> Step:
    condition = {"": "", "no": "{{ .input.no }}"}.get(node.condition)
    if condition is None:
        condition = f'{{{{ if contains "yes" .steps.s{node.needs[0]}.output }}}}true{{{{ end }}}}'
    more = f'{{{{ if contains "more" .steps.s{number}.output }}}}true{{{{ end }}}}'
    return Step(
        name=f"s{number}",
        role=f"role{number % 3}",
        depends_on=tuple(f"s{each}" for each in node.needs),
        inputs={
            "topic": "{{ .input.topic }}",
            **{f"in{each}": f"{{{{ .steps.s{each}.output }}}}" for each in node.needs},
        },
        condition=condition,
        loop=Loop(condition=more, max_iterations=node.most) if node.most else None,
        output_schema={"type": "object", "required": ["text"]} if node.wants_json else None,
        validation=Validation(contains="good", on_failure="retry", max_retries=node.retries)
        if node.retries >= 0
        else None,
    )


def said(node: Node, name: str, iteration: int, attempt: int, prompt: str) -> str:
    """The model's answer: it follows from what it was asked, so that a wrong input shows in all that comes after."""
    if node.fails:
        return f"FAIL: {name}"
    quality = "bad" if attempt <= node.bad_tries else "good"
    more = "more" if iteration < node.iterations else "done"
    answer = "yes" if node.says_yes else "nay"
    digest = hashlib.sha256(prompt.encode()).hexdigest()[:8]
    text = f"{name} {iteration} {attempt} {quality} {more} {answer} {digest}"
    if not node.wants_json or attempt in node.bad_json:
        return text
    return json.dumps({"text": text})


class Expected(Struct):
    """How the run has to end."""

    phases: dict[str, str]
    outputs: dict[str, str]
    calls: dict[tuple[str, int, int], str]
    """Step, iteration, try -> the purpose of each model call."""
    output: str
    has_failed: bool


def interpret(nodes: list[Node], topic: str) -> Expected:
    """Run the steps one after the other, each after all that it needs; those behind a failure stay pending."""
    found = Expected({}, {}, {}, "", False)
    for number, node in enumerate(nodes):
        name = f"s{number}"
        if any(found.phases[f"s{each}"] not in ("Succeeded", "Skipped") for each in node.needs):
            found.phases[name] = "Pending"
            continue
        is_wanted = node.condition != "no" and (
            node.condition != "yes-of" or "yes" in found.outputs.get(f"s{node.needs[0]}", "")
        )
        if not is_wanted:
            found.phases[name] = "Skipped"
            continue
        prompt = f"topic: {topic}\n" + "".join(
            f"in{each}: {found.outputs.get(f's{each}', '')}\n" for each in node.needs
        )
        found.phases[name], found.outputs[name] = _run_step(node, name, prompt, found.calls)
    found.has_failed = "Failed" in found.phases.values()
    inner = {each for node in nodes for each in node.needs}
    last = [found.outputs.get(f"s{number}", "") for number in range(len(nodes)) if number not in inner]
    found.output = "" if found.has_failed else "\n\n".join(text for text in last if text)
    return found


def _run_step(node: Node, name: str, prompt: str, calls: dict[tuple[str, int, int], str]) -> tuple[str, str]:
    output = ""
    for iteration in range(1, (node.most or 1) + 1):
        phase, output = _run_iteration(node, name, iteration, prompt, calls)
        if phase == "Failed":
            return "Failed", output
        if "more" not in output:
            break
    return "Succeeded", output


def _run_iteration(
    node: Node, name: str, iteration: int, prompt: str, calls: dict[tuple[str, int, int], str]
) -> tuple[str, str]:
    attempt, retried, has_repaired, purpose = 0, 0, False, "step"
    while True:
        attempt += 1
        calls[name, iteration, attempt] = purpose
        text = said(node, name, iteration, attempt, prompt)
        if text.startswith("FAIL"):
            return "Failed", ""
        if node.wants_json and not has_repaired and not text.startswith("{"):
            has_repaired, purpose = True, "repair"
            continue
        if node.retries >= 0 and "good" not in text:
            if retried < node.retries:
                retried, purpose = retried + 1, "step"
                continue
            return "Failed", ""
        return "Succeeded", text
