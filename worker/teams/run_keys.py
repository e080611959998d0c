"""Where runs stand in the `StateStore`. Each first word is a family of its own, so that who watches one hears nothing
of the others."""

from __future__ import annotations

ACTIVE = "team-active/"
"""Followed by a run's id: there is something to be done for it. See `worker.teams.active_runs`."""
ACTIVE_HELLO = f"{ACTIVE}~hello"
WAKES = "team-wakes/"
"""Followed by a run's id: set after each event of its log, so that those who follow it look again."""
WAKES_HELLO = f"{WAKES}~hello"
DRIVERS = "team-drivers/"
"""Followed by a driving process' name: it lives as long as that process."""
INDEX = "team-runs-index"
"""Log of runs that nobody's step has started, in the order in which they were started."""
WAKE_TTL_S = 60.0


def plan_key(digest: str) -> str:
    """Of a plan, by the digest of its content."""
    return f"team-plans/{digest}"


def calls_log(run_id: str) -> str:
    """Log of the calls that delegate, in a run and in all runs within it."""
    return f"team-children/{run_id}"


def header_key(run_id: str) -> str:
    """Of what a run is."""
    return f"team-runs/header/{run_id}"


def summary_key(run_id: str) -> str:
    """Of what a list shows of it, as its driver last saw it."""
    return f"team-runs/summary/{run_id}"


def driver_key(run_id: str) -> str:
    """Of the name of the process that drives it."""
    return f"team-runs/driver/{run_id}"


def events_log(run_id: str) -> str:
    """The log of what has happened to it."""
    return f"team-run/{run_id}"


def team_index(team: str) -> str:
    """Log of a team's runs."""
    return f"{INDEX}/team/{team}"


def tenant_index(tenant: str) -> str:
    """Log of a tenant's runs."""
    return f"{INDEX}/tenant/{tenant}"
