"""`Bundle`: what a file declares. `read_bundle` reads it, `look_at` also says what is in a file with errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from worker.teams.errors import BadTeamFile, TeamNotFound
from worker.teams.kinds.events import RunSpec
from worker.teams.kinds.findings import Finding, Findings, printable
from worker.teams.kinds.reading import Draft, read_draft
from worker.teams.notify.model import Notify
from worker.teams.plan import Plan
from worker.teams.triggers.model import Trigger

__all__ = ["Bundle", "Draft", "Finding", "RunSpec", "look_at", "read_bundle"]


class Bundle(Struct, frozen=True, kw_only=True):
    """What a file declares. Nothing of it is a secret, but for the values of `env`."""

    file: str = ""
    plans: dict[str, Plan] = {}
    """Of its teams and agents, by name. Where both have the same one, it is the team's."""
    teams: tuple[str, ...] = ()
    """Flows and teams, in the file's order."""
    agents: tuple[str, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    notifies: tuple[Notify, ...] = ()
    runs: tuple[RunSpec, ...] = ()
    """Runs that the file asks for."""
    findings: tuple[Finding, ...] = ()
    """Warnings and notes."""
    env: dict[str, str] = field(default_factory=dict)
    """What an embedded run puts into its environment: values of Secrets, ConfigMaps and `.env`. Never stored."""

    def plan(self, name: str = "") -> Plan:
        """Of a team or an agent; empty: of the first team, or the first agent if there are no teams.

        Raises `TeamNotFound` in ark's words.
        """
        wanted = name or next(iter((*self.teams, *self.agents)), "")
        if wanted in self.plans:
            return self.plans[wanted]
        if not self.plans:
            raise TeamNotFound(f"no ArkFlow resources found in {self.file}, nor teams or agents of another kind")
        word = self.plans[self.teams[0]].team.word if self.teams else "team"
        word = "team" if word == "pipeline" else word
        raise TeamNotFound(f'{word} "{wanted}" not found; available: [{" ".join(self.teams or self.agents)}]')

    def __repr__(self) -> str:
        return f"Bundle(file={self.file!r}, teams={self.teams!r}, agents={self.agents!r}, env={sorted(self.env)!r})"


def read_bundle(path: Path, *, text: str | None = None, environ: Mapping[str, str] | None = None) -> Bundle:
    """Read a file; with `text`, what stands there in its place; with `environ`, as if that were the environment. Raises
    `BadTeamFile` with one line for each error."""
    draft, findings = look_at(path, text=text, environ=environ)
    findings.refuse_errors()
    return Bundle(
        file=str(path),
        plans=draft.plans(),
        teams=tuple(draft.teams),
        agents=tuple(draft.agents),
        triggers=draft.triggers,
        notifies=draft.notifies,
        runs=draft.runs,
        findings=findings.all(),
        env=draft.env,
    )


def look_at(path: Path, *, text: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Draft, Findings]:
    """What a file declares, as far as it can be read, and all that was found. Raises `BadTeamFile` for a file that
    cannot be read at all."""
    if text is None:
        text = _text_of(path)
    findings = Findings(str(path))
    return read_draft(text, path, findings, environ), findings


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BadTeamFile(f"cannot read {printable(str(path))}: {error.strerror}") from error
    except ValueError as error:  # no UTF-8; or a NUL in the path
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise BadTeamFile(f"cannot read {printable(str(path))}: it is no UTF-8 text{where}") from error
