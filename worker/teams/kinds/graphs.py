"""Whether a pipeline's steps are a graph without cycles, and what is upstream of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from worker.teams.kinds.findings import Findings
from worker.teams.kinds.objects import Fields
from worker.teams.plan import Step


def check_graph(steps: Sequence[Step], found: Sequence[Fields], findings: Findings) -> bool:
    """Tell of unknown dependencies, and of the first cycle, in ark's words. Whether all is well."""
    places = {step.name: fields for step, fields in zip(steps, found, strict=True)}
    is_well = True
    for step in steps:
        for index, needed in enumerate(step.depends_on):
            if needed not in places:
                node = places[step.name].at("dependsOn").items[index]
                findings.error(node, f'invalid DAG: step "{step.name}" depends on unknown step "{needed}"')
                is_well = False
    cycle = find_cycle({step.name: step.depends_on for step in steps})
    if cycle is not None:
        step_name, needed = cycle
        node = places[step_name].at("dependsOn")
        findings.error(node, f'invalid DAG: cycle detected: step "{step_name}" → "{needed}" forms a cycle')
        is_well = False
    return is_well


def find_cycle(needs: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """The edge that closes a cycle, if there is one. Without recursion: a file may have thousands of steps."""
    done: set[str] = set()
    for start in needs:
        path: dict[str, int] = {start: 0} if start not in done else {}
        while path:
            name = next(reversed(path))
            edges = needs.get(name, ())
            if path[name] >= len(edges):
                done.add(name)
                del path[name]
                continue
            following = edges[path[name]]
            path[name] += 1
            if following in path:
                return name, following
            if following not in done:
                path[following] = 0
    return None


def upstream(steps: Sequence[Step]) -> dict[str, frozenset[str]]:
    """All that has to end before each step begins. The graph has no cycle."""
    needs = {step.name: step.depends_on for step in steps}
    found: dict[str, frozenset[str]] = {}
    todo = list(needs)
    while todo:
        name = todo[-1]
        waiting = [needed for needed in needs[name] if needed in needs and needed not in found]
        if name in found or not waiting:
            todo.pop()
            if name not in found:
                inner = [found[needed] for needed in needs[name] if needed in found]
                found[name] = frozenset(needs[name]).union(*inner)
        else:
            todo.extend(waiting)
    return found
