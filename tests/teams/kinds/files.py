"""Team files for tests."""

from __future__ import annotations

from pathlib import Path

from worker.teams.bundle import Bundle, Finding, look_at, read_bundle

HERE = Path("team.yaml")

AGENT = """\
apiVersion: arkonis.dev/v1alpha1
kind: ArkAgent
metadata: {name: writer}
spec: {model: mock, systemPrompt: You write.}
"""


def flow(*steps: str, more: str = "") -> str:
    """A flow of these steps, with the agent `writer`. Its first step is in line 5."""
    listed = "".join(f"    - {step}\n" for step in steps)
    return (
        "kind: ArkFlow\napiVersion: arkonis.dev/v1\nmetadata: {name: f}\nspec:\n  steps:\n"
        + listed
        + more
        + "---\n"
        + AGENT
    )


def team(spec: str, *documents: str) -> str:
    """A SwarmTeam; its spec's first line is line 5."""
    head = "kind: SwarmTeam\napiVersion: kubeswarm.io/v1alpha1\nmetadata: {name: t}\nspec:\n"
    return "---\n".join([head + spec, *documents])


def document(kind: str, spec: str, name: str = "x") -> str:
    """A document of a kind; its spec's first line is line 5."""
    group = "kubeswarm.io" if kind.startswith("Swarm") else "arkonis.dev"
    return f"kind: {kind}\napiVersion: {group}/v1alpha1\nmetadata: {{name: {name}}}\nspec:\n{spec}"


def bundle(text: str, folder: Path | None = None) -> Bundle:
    """The bundle of a text, as if it stood in a folder."""
    return read_bundle((folder or Path()) / "team.yaml", text=text)


def findings(text: str, *severities: str) -> list[Finding]:
    """What is found in a text; of some severities only."""
    _, found = look_at(HERE, text=text)
    return [each for each in found.all() if not severities or each.severity in severities]


def places(text: str, severity: str = "error") -> list[str]:
    """`line:column: message` of what is found."""
    return [f"{each.line}:{each.column}: {each.message}" for each in findings(text, severity)]


def marks(text: str) -> tuple[str, list[str]]:
    """The text without its marks (`«`), and where they stood: `line:column`, in the text's order."""
    found, clean = [], ""
    for part in text.split("«")[:-1]:
        clean += part
        found.append(f"{clean.count(chr(10)) + 1}:{len(clean) - clean.rfind(chr(10))}")
    return text.replace("«", ""), found
