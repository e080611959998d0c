"""Each open stream is an open file; many systems allow a process 1024 of them until it asks for more."""

from __future__ import annotations

import structlog

_OTHERS = 512
"""Files that are no streams: connections to the queue, providers, logs, short requests."""

log = structlog.get_logger(__name__)


def allow_files(streams: int) -> None:
    """Raise the limit of open files so that so many streams fit, as far as the system lets it; else say so."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    wanted = streams + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    except (OSError, ValueError):
        reachable = soft
    if reachable < wanted:
        log.warning(
            "this process may have fewer open files than gateway.max_streams needs: raise the limit (ulimit -n)",
            limit=reachable,
            max_streams=streams,
        )
