"""The runs API: `/v1/runs`, and the teams that can be run: `/v1/teams`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from worker.gateway.caller import Scope
from worker.gateway.operation import Answer, Call, Operation
from worker.gateway.problem import Problem
from worker.gateway.run_access import header_of, note_tasks, team_named, teams_of
from worker.gateway.run_graph import GraphView, graph_view
from worker.gateway.run_listing import list_runs
from worker.gateway.run_start import start_run
from worker.gateway.run_stream import stream_run
from worker.gateway.run_views import (
    MOST_FILE_CHARS,
    CancelRun,
    ChildView,
    EventsQuery,
    RunCancelled,
    RunHead,
    RunPage,
    RunRequest,
    RunsQuery,
    RunStarted,
    RunView,
    StepDetail,
    StepView,
    TeamListItem,
    TeamPage,
    TeamQuery,
)
from worker.teams.errors import TemplateError
from worker.teams.graph import as_svg, layout
from worker.teams.plan import Step, Team
from worker.teams.rendering import step_prompt
from worker.teams.run_state import ChildState, RunState
from worker.teams.runs import Run

_SVG_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_BODY_BYTES: Final = 2 * MOST_FILE_CHARS + 1024 * 1024


async def _list(call: Call) -> RunPage:
    return await list_runs(call, call.query)


async def _start(call: Call) -> Answer:
    started = await start_run(call, call.body)
    headers = {"Location": f"/v1/runs/{started.id}"}
    if started.is_repeated:
        headers["Idempotent-Replayed"] = "true"
    return Answer(value=started, status=202, headers=headers)


async def _read(call: Call) -> Run:
    return await call.gateway.runs.read((await header_of(call)).id)


async def _get(call: Call) -> RunView:
    run = await _read(call)
    return RunView(
        run=RunHead.of(run.header, run.plan.find(run.header.team), run.state),
        steps=[StepView.of(step) for step in run.state.steps],
        children=[ChildView.of(child) for child in run.state.children],
    )


async def _step(call: Call) -> StepDetail:
    run, name = await _read(call), call.path["step"]
    team = run.plan.find(run.header.team)
    await note_tasks(call, run)
    known = next((step for step in run.state.steps if step.name == name), None)
    if known is None:
        raise Problem(404, f"run {run.state.id} has no step {name[:200]!r}", code="step_not_found")
    declared = next((step for step in team.steps if step.name == name), Step(name=name, role=known.role))
    role = team.role(known.role or declared.role)
    return StepDetail(
        step=StepView.of(known),
        output=known.output,
        raw_output=known.raw_output if known.raw_output != known.output else "",
        data=known.data,
        artifacts=known.artifacts,
        prompt=await asyncio.to_thread(_prompt, team, declared, run.state),
        inputs=declared.inputs,
        depends_on=declared.depends_on,
        condition=declared.condition,
        model=declared.model or (role.config.model if role else ""),
        children=_children(run.state.children, name),
    )


def _prompt(team: Team, step: Step, state: RunState) -> str:
    try:
        return step_prompt(team, step, state)
    except (TemplateError, KeyError):
        return ""


def _children(children: Sequence[ChildState], step: str) -> list[ChildView]:
    return [ChildView.of(child) for child in children if child.step == step]


async def _graph(call: Call) -> Response:
    run = await _read(call)
    return await _svg(run.plan.find(run.header.team), run.state)


async def _svg(team: Team, state: RunState | None = None) -> Response:
    """In a thread: a large one takes a second."""
    text = await asyncio.to_thread(lambda: as_svg(layout(team, state, now=time.time())))
    return Response(text, media_type="image/svg+xml", headers=_SVG_HEADERS)


async def _events(call: Call) -> Response:
    return await stream_run(call, await header_of(call))


async def _cancel(call: Call) -> Answer:
    header = await header_of(call)
    by = call.caller.name or call.caller.id
    await call.gateway.runs.cancel(header.id, by=by, reason=call.body.reason)
    return Answer(value=RunCancelled(id=header.id), status=202)


async def _teams(call: Call) -> TeamPage:
    found = []
    for stored in teams_of(call):
        team = stored.value
        found.append(
            TeamListItem.of(
                team.slug,
                team.namespace,
                team.plan.team,
                is_active=team.is_active,
                updated_at=stored.updated_at,
            )
        )
    return TeamPage(teams=found)


def _team_of(call: Call) -> Team:
    return team_named(call, call.path["slug"], call.caller.tenant or call.query.namespace).plan.team


async def _team_graph(call: Call) -> GraphView:
    return await asyncio.to_thread(lambda team: graph_view(layout(team)), _team_of(call))


async def _team_svg(call: Call) -> Response:
    return await _svg(_team_of(call))


def _operation(method: str, path: str, handler: Any, summary: str, **more: Any) -> Operation:
    scope = Scope.TASKS_READ if method == "GET" else Scope.TASKS_WRITE
    return Operation(
        method=method, path=f"/v1{path}", handler=handler, summary=summary, scope=scope, tag="Runs of teams", **more
    )


OPERATIONS: tuple[Operation, ...] = (
    _operation("GET", "/runs", _list, "Runs of teams, the newest first", query=RunsQuery, result=RunPage),
    _operation(
        "POST",
        "/runs",
        _start,
        "Run a team of the fleet, or one of a file",
        body=RunRequest,
        result=RunStarted,
        status=202,
        max_body_bytes=_BODY_BYTES,
        errors=(404, 409, 422),
    ),
    _operation("GET", "/runs/{id}", _get, "A run: its steps, and what they delegated", result=RunView, errors=(404,)),
    _operation(
        "GET",
        "/runs/{id}/steps/{step}",
        _step,
        "A step with its prompt and whole output",
        result=StepDetail,
        errors=(404,),
    ),
    _operation("GET", "/runs/{id}/graph.svg", _graph, "A run as a picture (SVG)", errors=(404,)),
    _operation(
        "GET",
        "/runs/{id}/events",
        _events,
        "A run as server-sent events, resumed after `Last-Event-ID`; with `chunks`, its running steps' chunks too",
        query=EventsQuery,
        is_stream=True,
        also={204: None},
        errors=(404,),
    ),
    _operation(
        "POST",
        "/runs/{id}/cancel",
        _cancel,
        "End a run with all that it has begun",
        body=CancelRun,
        result=RunCancelled,
        status=202,
        errors=(404, 409),
    ),
    _operation("GET", "/teams", _teams, "The teams that can be run", result=TeamPage),
    _operation(
        "GET",
        "/teams/{slug}/graph",
        _team_graph,
        "A team as a picture: cards and lines with their places",
        query=TeamQuery,
        result=GraphView,
        errors=(404,),
    ),
    _operation(
        "GET", "/teams/{slug}/graph.svg", _team_svg, "A team as a picture (SVG)", query=TeamQuery, errors=(404,)
    ),
)
