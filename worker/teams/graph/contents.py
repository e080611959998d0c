"""What is in a picture: nodes and edges of a team, and of a run of it, still without places."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from worker.teams.graph.model import Edge, Node
from worker.teams.plan import ROUTE, ROUTER, Role, Step, Team
from worker.teams.run_state import ChildState, Phase, RunState, StepState

MOST_SIBLINGS = 12
"""More tasks than that, which one task delegated to the same role, are one node."""


class Contents(Struct, frozen=True):
    """Nodes in the order of the file, edges from earlier to later."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def contents_of(team: Team, state: RunState | None, now: float | None) -> Contents:
    """All of it. With a state, nodes say how far they are; running ones count their seconds until `now`."""
    if team.mode == "routed":
        return _routed(team, state, now)
    if team.mode == "dynamic":
        return _dynamic(team, state, now)
    return _pipeline(team, state, now)


# Graphs of steps


def _pipeline(team: Team, state: RunState | None, now: float | None) -> Contents:
    names = {step.name for step in team.steps}
    nodes = [_step_node(team, step, state, now) for step in team.steps]
    edges = [
        Edge(source=before, target=step.name, label=step.condition)
        for step in team.steps
        for before in dict.fromkeys(step.depends_on)
        if before in names and before != step.name
    ]
    grown = _children(team, state, now)
    return Contents((*nodes, *grown.nodes), (*edges, *grown.edges))


def _step_node(team: Team, step: Step, state: RunState | None, now: float | None) -> Node:
    known = _state_of(state, step.name)
    role = team.role(known.role if known and known.role else step.role)
    node = Node(
        id=step.name,
        kind="router" if step.name == ROUTER else "step",
        title=step.name,
        subtitle=_subtitle(role, step, known),
        step=step.name,
        condition=step.condition,
        marks=tuple(_marks(role, step)),
        team=role.team if role else "",
    )
    return _with_state(node, known, step, now) if known else node


def _state_of(state: RunState | None, name: str) -> StepState | None:
    if state is None:
        return None
    return next((step for step in state.steps if step.name == name), StepState(name=name))


def _subtitle(role: Role | None, step: Step, known: StepState | None) -> str:
    name = known.role if known and known.role else step.role
    model = step.model or (_model(role) if role else "")
    shown = "" if name == step.name else name
    return " · ".join(part for part in (shown, model) if part)


def _model(role: Role) -> str:
    if role.team:
        return f"team {role.team}" if role.team != role.name else "team"
    return role.config.model or (f"agent {role.agent}" if role.agent and role.agent != role.name else "")


def _marks(role: Role | None, step: Step) -> Iterator[str]:
    if step.loop is not None:
        yield f"loop ≤ {step.loop.max_iterations}"
    if step.approval is not None:
        yield "approval"
    if role and role.team:
        yield "team"
    if step.lookup is not None:
        yield f"finds {step.lookup.capability}"
    if step.output_schema is not None or (step.validation and step.validation.schema is not None):
        yield "JSON"
    if step.validation is not None:
        yield "checked"
    if role and role.approve_tools:
        yield "asks for tools"


def _with_state(node: Node, known: StepState, step: Step, now: float | None) -> Node:
    return replace(
        node,
        phase=known.phase,
        task_id=known.task_id,
        progress=_progress(known, step),
        message=known.message,
        tokens=known.tokens,
        cost_usd=known.cost_usd,
        started_at=known.started_at,
        seconds=elapsed(known.started_at, known.ended_at, now),
    )


def _progress(known: StepState, step: Step) -> str:
    parts = []
    if step.loop is not None and known.iteration:
        parts.append(f"{known.iteration} of {step.loop.max_iterations}")
    if known.tries > 1:
        parts.append(f"try {known.tries}")
    return " · ".join(parts)


def elapsed(started_at: float, ended_at: float, now: float | None) -> float | None:
    """Seconds from the beginning to the end, or to `now`; None: it has not begun, or nobody says what time it is."""
    if not started_at:
        return None
    until = ended_at or now
    return None if until is None else max(0.0, until - started_at)


# What was delegated


def _children(team: Team, state: RunState | None, now: float | None) -> Contents:
    if state is None or not state.children:
        return Contents((), ())
    tasks = {step.task_id: step.name for step in state.steps if step.task_id}
    families: dict[tuple[str, str, str], list[ChildState]] = defaultdict(list)
    for child in state.children:
        families[child.parent, child.role, child.step].append(child)
    ids = {**tasks}
    for family in families.values():
        is_many = len(family) > MOST_SIBLINGS
        ids |= {child.task_id: _child_id(family[0] if is_many else child) for child in family}
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    for family in families.values():
        for node, child in _family(team, family, now):
            parent = ids.get(child.parent, child.step)
            nodes[node.id] = node
            if parent != node.id:
                edges.append(Edge(source=parent, target=node.id, kind="delegated"))
    known = {*nodes, *(step.name for step in state.steps)}
    return Contents(tuple(nodes.values()), tuple(edge for edge in edges if edge.source in known))


def _child_id(child: ChildState) -> str:
    return f"task:{child.task_id}"


def _family(team: Team, family: Sequence[ChildState], now: float | None) -> Iterator[tuple[Node, ChildState]]:
    if len(family) > MOST_SIBLINGS:
        yield _many(team, family, now), family[0]
        return
    for child in family:
        yield _child_node(team, child, now), child


def _child_node(team: Team, child: ChildState, now: float | None) -> Node:
    role = team.role(child.role)
    return Node(
        id=_child_id(child),
        kind="child",
        title=child.role or "subtask",
        subtitle=_model(role) if role else "",
        step=child.step,
        task_id=child.task_id,
        phase=child.phase,
        message=child.error or child.prompt,
        team=role.team if role else "",
        tokens=child.usage.total_tokens,
        cost_usd=child.cost_usd,
        started_at=child.started_at,
        seconds=elapsed(child.started_at, child.ended_at, now),
    )


def _many(team: Team, family: Sequence[ChildState], now: float | None) -> Node:
    first, ended = family[0], [child for child in family if child.phase.is_final]
    failed = sum(child.phase is Phase.FAILED for child in family)
    phase = Phase.RUNNING if len(ended) < len(family) else Phase.FAILED if failed else Phase.SUCCEEDED
    started = min((child.started_at for child in family if child.started_at), default=0.0)
    last = max(child.ended_at for child in family) if len(ended) == len(family) else 0.0
    costs = [child.cost_usd for child in family if child.cost_usd is not None]
    return replace(
        _child_node(team, first, now),
        task_id="",
        title=f"{first.role} x {len(family)}",
        phase=phase,
        progress=f"{len(ended)} of {len(family)} done" + (f", {failed} failed" if failed else ""),
        message="",
        tokens=sum(child.usage.total_tokens for child in family),
        cost_usd=sum(costs) if costs else None,
        started_at=started,
        seconds=elapsed(started, last, now),
    )


# Roles that delegate


def _dynamic(team: Team, state: RunState | None, now: float | None) -> Contents:
    entry = team.entry or (team.steps[0].role if team.steps else "")
    grown = _children(team, state, now)
    doers = {entry, *(child.role for child in (state.children if state else ()))}
    nodes = [_role_node(team, role, state, now, is_entry=role.name == entry) for role in team.roles]
    if state is None:
        return Contents(tuple(nodes), tuple(_may_delegate(team)))
    first = replace(
        next((node for node in nodes if node.title == entry), _nobody(entry)), id=_entry_step(team, entry).name
    )
    idle = [replace(node, is_idle=True) for node in nodes if node.title not in doers]
    askers = {role.name: set(role.can_delegate) for role in team.roles}
    place: dict[str, str] = {entry: first.id}
    for child in state.children:
        place.setdefault(child.role, f"task:{child.task_id}")
    known = {first.id, *(node.id for node in grown.nodes)}
    edges = [
        Edge(source=place[asker], target=node.id, kind="delegates", is_idle=True)
        for node in idle
        for asker, may in askers.items()
        if node.title in may and place.get(asker) in known
    ]
    return Contents((first, *grown.nodes, *idle), (*grown.edges, *edges))


def _nobody(name: str) -> Node:
    return Node(id=_role_id(name), kind="role", title=name)


def _entry_step(team: Team, entry: str) -> Step:
    return team.steps[0] if team.steps else Step(name=entry, role=entry)


def _role_id(name: str) -> str:
    return f"role:{name}"


def _role_node(team: Team, role: Role, state: RunState | None, now: float | None, *, is_entry: bool) -> Node:
    marks = [*(["entry"] if is_entry else []), *(["team"] if role.team else [])]
    if role.name in role.can_delegate:
        marks.append("to itself")
    if role.approve_tools:
        marks.append("asks for tools")
    node = Node(
        id=_role_id(role.name),
        kind="role",
        title=role.name,
        subtitle=_model(role) or role.description,
        marks=tuple(marks),
        team=role.team,
    )
    if state is None:
        return node
    if not is_entry:
        return replace(node, phase=Phase.PENDING)
    step = _entry_step(team, role.name)
    known = _state_of(state, step.name) or StepState(name=step.name)
    return replace(_with_state(node, known, step, now), step=step.name)


def _may_delegate(team: Team) -> Iterator[Edge]:
    names = {role.name for role in team.roles}
    for role in team.roles:
        for other in dict.fromkeys(role.can_delegate):
            if other in names and other != role.name:
                yield Edge(source=_role_id(role.name), target=_role_id(other), kind="delegates")


# A router and those it chooses from


def _routed(team: Team, state: RunState | None, now: float | None) -> Contents:
    steps = {step.name: step for step in team.steps}
    router = _step_node(team, steps.get(ROUTER, Step(name=ROUTER, role=ROUTER)), state, now)
    route, chosen = steps.get(ROUTE, Step(name=ROUTE, role="")), _state_of(state, ROUTE)
    agents = [_agent_node(team, role, route, chosen, now) for role in team.roles if role.name != ROUTER]
    edges = tuple(
        Edge(source=router.id, target=agent.id, kind="routes", is_idle=agent.is_idle, label=agent.condition)
        for agent in agents
    )
    grown = _children(team, state, now)
    shown = next((agent.id for agent in agents if agent.step), router.id)
    moved = tuple(replace(edge, source=shown) if edge.source == ROUTE else edge for edge in grown.edges)
    return Contents((router, *agents, *grown.nodes), (*edges, *moved))


def _agent_node(team: Team, role: Role, route: Step, chosen: StepState | None, now: float | None) -> Node:
    skills = Counter(capability.name for capability in role.capabilities)
    node = Node(
        id=_role_id(role.name),
        kind="agent",
        title=role.name,
        subtitle=", ".join(skills) or _model(role) or role.description,
        marks=("team",) if role.team else (),
        team=role.team,
    )
    if chosen is None:
        return node
    if chosen.role == role.name:
        return replace(_with_state(node, chosen, route, now), step=ROUTE)
    return replace(node, phase=Phase.SKIPPED if chosen.role else Phase.PENDING, is_idle=bool(chosen.role))
