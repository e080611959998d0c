"""Where memories stand in a `StateStore`. Names of tenants, memories and roles are quoted: none can pose as two."""

from __future__ import annotations

from urllib.parse import quote

from queue_backends import StateStore

PREFIX = "team-memory/"


def run_prefix(run_id: str) -> str:
    """Before all that is remembered within one run."""
    return f"{PREFIX}run/{_quoted(run_id)}/"


def run_key(run_id: str, role: str) -> str:
    """Of what a role remembers within one run."""
    return run_prefix(run_id) + _quoted(role)


def shared_key(tenant: str, name: str, role: str) -> str:
    """Of what a role remembers from run to run."""
    return f"{PREFIX}of/{_quoted(tenant)}/{_quoted(name)}/{_quoted(role)}"


def collection_name(digest: str) -> str:
    """Of a vector memory, among the collections of vector stores."""
    return f"team-memory-{digest}"


async def forget_run(state: StateStore, run_id: str) -> None:
    """Delete what was remembered within a run. Raises `BackendUnavailable`."""
    for key in [key async for key, _ in state.scan(run_prefix(run_id))]:
        await state.delete(key)


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="replace")
