"""A long soak: `python -m tests.faults [--engine valkey] --minutes 30 [--tasks N] [--write docs/reliability.md]`.

Exits with 1 if a promise was broken. What is not given follows from the minutes, so that half an hour has ten thousand
tasks, two hundred killed workers and twenty restarts of the broker.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.book import write, write_row
from tests.faults.brokers.engines import ENGINES
from tests.faults.report import as_json, render
from tests.faults.schedule import FaultKind, Mix
from tests.faults.soak import Options, Outcome, soak
from worker.log import configure_logging

PER_MINUTE = {"tasks": 360, "kills": 7.2, "restarts": 0.72}


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Inject faults, then check promises.")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="valkey", help="default: valkey")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long tasks are submitted and faults injected")
    parser.add_argument("--tasks", type=int, default=0, help="default: 360 a minute")
    parser.add_argument("--kills", type=int, default=0, help="workers killed; default: 7.2 a minute")
    parser.add_argument("--restarts", type=int, default=0, help="restarts of the broker; default: 0.72 a minute")
    parser.add_argument("--seed", type=int, default=0, help="default: a new one")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=20, help="tasks at once, each worker")
    parser.add_argument("--lease", type=float, default=2.0, help="seconds")
    parser.add_argument("--write", type=Path, help="a document: the engine's line between its marks is exchanged")
    parser.add_argument("--long", action="store_true", help="what --write exchanges is the long soak's whole report")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    parser.add_argument("--keep", type=Path, help="a folder for logs and diaries; they are kept after a failure anyway")
    given = parser.parse_args()
    given.seed = given.seed or int(time.time())
    for name, rate in PER_MINUTE.items():
        setattr(given, name, getattr(given, name) or max(1, round(rate * given.minutes)))
    return given


def mix_of(kills: int, restarts: int) -> Mix:
    """All kinds of faults, in proportion to these two."""
    outages = power_cuts = restarts // 5
    return {
        FaultKind.KILL: kills,
        FaultKind.STOP: kills // 5,
        FaultKind.HICCUP: kills // 5,
        FaultKind.DRAIN: kills // 5,
        FaultKind.CUT: kills // 4,
        FaultKind.STRAND: kills // 20,
        FaultKind.PARTITION: kills // 8,
        FaultKind.DELAY: kills // 8,
        FaultKind.LOST_REPLY: kills // 5,
        FaultKind.LOST_COMMIT: kills // 5,
        FaultKind.CLIENT_CUT: kills // 8,
        FaultKind.BROKER_RESTART: restarts // 2,
        FaultKind.BROKER_CRASH: restarts - restarts // 2 - outages - power_cuts,
        FaultKind.BROKER_OUTAGE: outages,
        FaultKind.POWER_CUT: power_cuts,
        FaultKind.SLEEP: restarts // 5,
        FaultKind.BROKER_HANG: restarts // 2,
        FaultKind.BROKER_CUT: restarts // 2,
        FaultKind.FAILOVER: restarts // 2,
        FaultKind.USURPED: restarts // 4,
        FaultKind.SCRIPTS_FORGOTTEN: restarts // 2,
    }


def options_of(given: argparse.Namespace) -> Options:
    """The run that the command line describes."""
    command = (
        f"python -m tests.faults --engine {given.engine} --minutes {given.minutes:g} --tasks {given.tasks} "
        f"--kills {given.kills} --restarts {given.restarts} --seed {given.seed} --workers {given.workers} "
        f"--concurrency {given.concurrency} --lease {given.lease:g}"
    )
    return Options(
        seed=given.seed,
        engine=given.engine,
        tasks=given.tasks,
        duration_s=given.minutes * 60,
        mix=mix_of(given.kills, given.restarts),
        workers=given.workers,
        concurrency=given.concurrency,
        lease_s=given.lease,
        command=command,
    )


def main() -> int:
    """Soak, report, and say whether all went well."""
    given = arguments()
    options = options_of(given)
    configure_logging("error", pretty=False)
    folder = given.keep or Path(tempfile.mkdtemp(prefix="shoal-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, {options.tasks} tasks, logs and diaries in {folder}", flush=True)
    outcome = asyncio.run(
        soak(options, folder, say=lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True))
    )
    _hand_over(outcome, given)
    if outcome.findings:
        print(outcome)
        return 1
    if not given.keep:
        shutil.rmtree(folder)
    return 0


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def _hand_over(outcome: Outcome, given: argparse.Namespace) -> None:
    text = render(outcome)
    print(text)
    if given.write:
        write_row(given.write, outcome)
    if given.write and given.long:
        write(given.write, text)
    if given.json:
        given.json.write_bytes(as_json(outcome))


if __name__ == "__main__":
    sys.exit(main())
