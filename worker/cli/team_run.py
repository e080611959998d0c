"""`shoal run FILE`: a whole team, in this process or on the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct
from msgspec.structs import replace

from worker.cli.failures import OK
from worker.cli.invocation import Invocation
from worker.cli.known_provider import providers_of_plan, refuse_unknown_providers
from worker.cli.model_choice import with_model
from worker.cli.team_input import read_inputs
from worker.cli.team_output import unwritable
from worker.cli.team_plan import Wishes, needs_model, shaped
from worker.teams.errors import RunBusy, TeamNotFound
from worker.teams.inputs import check_input
from worker.teams.plan import Plan
from worker.teams.runs import Run, Runs, new_run_id

if TYPE_CHECKING:
    from worker.cli.run_session import Look
    from worker.settings import Settings
    from worker.teams.bundle import Bundle

_NOT_WHEN_RESUMED = {
    "inputs": "--input",
    "flow": "--flow",
    "model": "--model",
    "provider": "--provider",
    "max_tokens": "--max-tokens",
    "timeout_s": "--timeout",
    "dry_run": "--dry-run",
    "no_mcp": "--no-mcp",
    "detach": "--detach",
}


class Fresh(Struct, frozen=True, kw_only=True):
    """A run that shall begin."""

    plan: Plan
    given: dict[str, Any]


def run_team(call: Invocation, file: Path | None, options: Mapping[str, Any]) -> int:
    """Exit code 1 if the team failed, 2 for what cannot be run, 4 for an unknown team or run, 130 after Ctrl-C."""
    _check(call, file, options)
    given = read_inputs(options["inputs"])
    if options["dry_run"]:
        from worker.cli.validate import validate_files

        return validate_files(call, [file] if file is not None else [], options["flow"] or "")
    from worker.teams.local import environment

    bundle = _bundle(call, file) if file is not None else None
    with environment(bundle.env if bundle is not None else {}):
        return call.wait_for(_run(call, bundle, given, options))


def _check(call: Invocation, file: Path | None, options: Mapping[str, Any]) -> None:
    context = click.get_current_context()
    if options["resume"]:
        for name, flag in _NOT_WHEN_RESUMED.items():
            if options[name]:
                raise click.UsageError(f"{flag} cannot be changed for a run that has begun", context)
    elif file is None and options["dry_run"]:
        raise click.UsageError("--dry-run needs a file to check", context)
    if options["trace"] and (call.screen.as_json or options["output"] == "json"):
        raise click.UsageError("--trace is for people; for programs there is: shoal runs show RUN --json", context)
    if options["detach"] and options["trace"]:
        raise click.UsageError(
            "--trace is told at the end, which --detach does not wait for: shoal runs show RUN", context
        )
    if options["detach"] and not call.is_queue_given:
        raise click.UsageError("--detach needs --queue: a run in this process ends with it", context)
    if options["tools"] and call.is_queue_given:
        raise click.UsageError("--tools means nothing with --queue: the workers there have their own", context)
    if options["max_tokens"] is not None and options["max_tokens"] < 1:
        raise click.UsageError(f"--max-tokens is {options['max_tokens']}: use 1 or more", context)
    if options["timeout_s"] == 0:
        raise click.UsageError("--timeout is 0: use more, or leave it out for no limit", context)
    if problem := unwritable(options["output"] or ""):
        raise click.UsageError(f"--output: cannot write {options['output']}: {problem}", context)


def _bundle(call: Invocation, file: Path) -> Bundle:
    from worker.teams.bundle import read_bundle

    bundle = read_bundle(file)
    for finding in bundle.findings:
        call.screen.note(str(finding), "warn" if finding.severity == "warning" else "dim")
    return bundle


async def _run(call: Invocation, bundle: Bundle | None, given: dict[str, Any], options: Mapping[str, Any]) -> int:
    from worker.cli.run_session import Look

    wishes = Wishes.of(options)
    settings = _settings(call, wishes, options)
    fresh = None
    if not options["resume"]:
        flow = options["flow"] or ""
        plan, in_file = _chosen(call, bundle, flow) if bundle is not None else (await _stored(call, flow), {})
        fresh = Fresh(plan=shaped(plan, wishes), given={**in_file, **given})
        check_input(fresh.plan.team, fresh.given)  # before anything is opened for it
    look = Look(is_shown=options["watch"], is_traced=options["trace"], output=options["output"] or "text")
    if call.is_queue_given:
        return await _run_on_fleet(call, settings, fresh or options["resume"], look, is_detached=options["detach"])
    return await _run_here(call, settings, fresh or options["resume"], look)


def _settings(call: Invocation, wishes: Wishes, options: Mapping[str, Any]) -> Settings:
    flags = {"agent.model": wishes.model, "agent.provider": wishes.provider}
    settings = call.settings({key: value for key, value in flags.items() if value})
    if options["tools"]:
        settings = replace(settings, python_tools=(*settings.python_tools, *options["tools"]))
    return replace(settings, mcp_servers=(), team_mcp=False) if wishes.no_mcp else settings


def _chosen(call: Invocation, bundle: Bundle, flow: str) -> tuple[Plan, dict[str, Any]]:
    """The plan that shall run, and the input that a SwarmRun of the file gives it. Says which of several was taken."""
    if not flow and len(bundle.runs) == 1:
        return bundle.plan(bundle.runs[0].team), dict(bundle.runs[0].input)
    plan = bundle.plan(flow)
    if not flow and len(bundle.teams) > 1:
        noun = "flows" if plan.team.word == "flow" else "teams"
        names = " ".join(bundle.teams)
        taken = f'running "{plan.name}" (use --flow <name> to pick)'
        call.screen.note(f"warning: {len(bundle.teams)} {noun} found [{names}] — {taken}", "warn")
    return plan, {}


async def _stored(call: Invocation, name: str) -> Plan:
    """Of a team that the fleet has."""
    from worker.definitions import Definitions

    async with call.fleet() as fleet:
        definitions = Definitions(fleet.backend.state)
        await definitions.load()
        found = definitions.teams.visible(name, "") or definitions.team_agents.visible(name, "")
    if found is None:
        raise TeamNotFound(f"no team {name!r} is stored: give a file, or `shoal team apply` it first")
    return found.value.plan


async def _run_here(call: Invocation, settings: Settings, wanted: Fresh | str, look: Look) -> int:
    """In this process, with a queue of its own. `wanted`: what shall begin, or the id of the run to go on with."""
    from worker.cli.run_session import Session, show_result
    from worker.teams.local import local_fleet

    if isinstance(wanted, Fresh):
        plan, run_id = wanted.plan, new_run_id(wanted.plan.name)
    else:
        async with call.fleet(settings) as fleet:
            run = await Runs(fleet.backend.state).read(wanted)
        plan, run_id = run.plan, wanted
        if run.state.phase.is_final:
            call.screen.note(f"run {run_id} has ended already", "warn")
            return show_result(call, plan, run.state, look)
        _refuse_other_place(run, is_local=True)
    settings = _with_store(settings, plan)
    async with AsyncExitStack() as stack:
        own = set[str]()
        if needs_model(plan):
            settings = await stack.enter_async_context(with_model(settings, call.screen))
            own = {settings.agent.provider} if not settings.agent.route else own
        settings = replace(settings, grace_s=0.0)  # what is under way when we leave is handed back, to go on later
        slots = 2 * sum(len(team.steps) + len(team.roles) for team in plan.teams)
        here = local_fleet(settings, run_id=run_id, slots=slots, note=lambda text: call.screen.note(text, "warn"))
        backend, runs, driver = await stack.enter_async_context(here)
        if isinstance(wanted, Fresh):
            await refuse_unknown_providers(settings, backend.state, {*own, *providers_of_plan(plan)})
            await runs.start(plan, wanted.given, run_id=run_id, is_local=True)
        return await Session(call, backend, runs, driver, look).run(plan, run_id)


def _with_store(settings: Settings, plan: Plan) -> Settings:
    """A folder that the team's `artifactStore` names counts where no store is configured; a store that it names is used
    by whoever runs its steps. A step that shall put out files has to have something to make them with."""
    team, artifacts = plan.team, settings.artifacts
    if artifacts.store_url or not (team.artifact_dir or team.artifact_store):
        return settings
    has_files = any(step.output_artifacts for step in team.steps)
    artifacts = replace(artifacts, tools=artifacts.tools or has_files)
    if team.artifact_dir:
        artifacts = replace(artifacts, store_url=Path(team.artifact_dir).expanduser().absolute().as_uri())
    return replace(settings, artifacts=artifacts)


async def _run_on_fleet(
    call: Invocation, settings: Settings, wanted: Fresh | str, look: Look, *, is_detached: bool
) -> int:
    """On the fleet's workers; driven from here as long as this lives, and then by `shoal serve`."""
    from worker.cli.run_session import Session, show_result
    from worker.fleet.presence import Workers
    from worker.teams.driver import Driver
    from worker.teams.triggers.telling import tell_end

    async with call.fleet(settings) as fleet:
        runs = Runs(fleet.backend.state)
        if isinstance(wanted, Fresh):
            plan, run_id = wanted.plan, await runs.start(wanted.plan, wanted.given)
        else:
            run = await runs.read(wanted)
            plan, run_id = run.plan, wanted
            if run.state.phase.is_final:
                call.screen.note(f"run {run_id} has ended already", "warn")
                return show_result(call, plan, run.state, look)
            _refuse_other_place(run, is_local=False)
        if is_detached:
            if call.screen.as_json:
                call.screen.json({"id": run_id})
            else:
                call.screen.line(run_id)
            call.screen.note(f"`shoal serve` drives it; to see it: shoal runs watch {run_id}")
            return OK
        if not await Workers(fleet.backend.state).all():  # a run says nothing while its tasks wait
            call.screen.note("no worker is up: tasks wait until there is one (shoal worker)", "warn")
        driver = Driver(fleet.backend, runs, on_end=partial(tell_end, settings, runs))
        return await Session(call, fleet.backend, runs, driver, look).run(plan, run_id)


def _refuse_other_place(run: Run, *, is_local: bool) -> None:
    if run.header.is_local and not is_local:
        raise RunBusy(f"run {run.header.id} has a queue of its own: resume it without --queue")
    if not run.header.is_local and is_local:
        raise RunBusy(
            f"run {run.header.id} is the fleet's, and `shoal serve` goes on with it: give --queue to help, or see it "
            f"with: shoal runs watch {run.header.id}"
        )
