"""What the checks hand back: what is wrong, and how much there was of everything."""

from __future__ import annotations

from collections import Counter, defaultdict

from msgspec import Struct


class Finding(Struct, frozen=True):
    """A broken promise: which rule, of which task (or key, or worker), and the evidence in words."""

    rule: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.text}"


class Verdict:
    """Findings and figures of all checks."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.figures: Counter[str] = Counter()
        self.harmed: defaultdict[str, set[str]] = defaultdict(set)
        """Kind of harm -> keys of the tasks that suffered it."""

    def broken(self, rule: str, subject: str, text: str) -> None:
        """A promise is broken."""
        self.findings.append(Finding(rule, subject, text))

    def count(self, figure: str, amount: int = 1) -> None:
        """There is so much more of it."""
        self.figures[figure] += amount

    def harm(self, kind: str, key: str, amount: int = 1) -> None:
        """A task suffered what must never happen; it is counted too."""
        self.harmed[kind].add(key)
        self.count(kind, amount)

    def rules(self) -> Counter[str]:
        """How often each rule is broken."""
        return Counter(finding.rule for finding in self.findings)
