"""What a loop policy says. The names in JSON and YAML are ark's, of `AGENT_LOOP_POLICY` and of `runtime.loop`.

Where ark has two names for a number, both are read: `threshold` 0.75 is `thresholdPercent` 75, `minSimilarity` 0.7 is
`minSimilarityPercent` 70. A zero is what it is in ark: the default.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from msgspec import Meta, Struct, field

USUAL_SHARE = 0.75
USUAL_SIMILARITY = 0.70
_SHARE = Annotated[float, Meta(ge=0, le=1)]
_PERCENT = Annotated[int, Meta(ge=0, le=100)]
_COUNT = Annotated[int, Meta(ge=0, le=1_000_000_000)]
_TOOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


class Compression(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """When the results of tools have filled the model's window, they are summed up."""

    threshold: _SHARE | None = None
    threshold_percent: _PERCENT | None = None
    preserve_recent_turns: Annotated[int, Meta(ge=0, le=1000)] = 4
    """The results of so many turns before the summary stay in the conversation as they are."""
    context_window: _COUNT = 0
    """In tokens; 0: what the provider or a table knows of the model."""
    model: str = ""
    """That sums up; empty: a cheap one of the vendor's if that is known, else the agent's own."""
    timeout_s: Annotated[float, Meta(ge=0, le=600)] = field(default=0.0, name="timeoutSeconds")
    instructions: str = ""
    """The system prompt of the summary; empty: the usual one."""

    def __post_init__(self) -> None:
        """Raise `ValueError` where both names are given."""
        _only_one("threshold", self.threshold, "thresholdPercent", self.threshold_percent)

    @property
    def share(self) -> float:
        """Of the window: when so much of it is filled, a summary is made."""
        return self.threshold or (self.threshold_percent or 0) / 100 or USUAL_SHARE

    @property
    def limit_s(self) -> float:
        """How long a summary may take."""
        return self.timeout_s or 30.0


class LoopMemory(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """What tools have found is kept as vectors, and told again before the results of similar calls."""

    ref: Any = None
    """The SwarmMemory's name, in files; where a worker keeps findings, `AGENT_VECTOR_STORE_URL` says."""
    store: bool = False
    retrieve: bool = False
    top_k: Annotated[int, Meta(ge=0, le=100)] = 0
    min_similarity: _SHARE | None = None
    min_similarity_percent: _PERCENT | None = None
    summary_tokens: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """A model sums a result up in so many tokens before it is kept; 0: its beginning is kept."""
    max_tokens: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """Of a finding that no model sums up, at four characters each."""
    embedding_model: str = ""
    embedding_provider: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` where both names are given."""
        _only_one("minSimilarity", self.min_similarity, "minSimilarityPercent", self.min_similarity_percent)

    @property
    def is_on(self) -> bool:
        """Whether it does anything."""
        return self.store or self.retrieve

    @property
    def most_found(self) -> int:
        """Findings told before one result."""
        return self.top_k or 3

    @property
    def similarity(self) -> float | None:
        """The least likeness of a finding that is told; None: the usual one."""
        return self.min_similarity or (self.min_similarity_percent or 0) / 100 or None

    @property
    def most_chars(self) -> int:
        """Of a finding."""
        return 4 * (self.max_tokens or 1024)


class SandboxPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """Long results are kept apart: the model gets a digest, and reads on where it wants to."""

    threshold_bytes: Annotated[int, Meta(ge=0, le=1_048_576)] = 0
    preview_bytes: Annotated[int, Meta(ge=0, le=4096)] = 0
    max_total_bytes: Annotated[int, Meta(ge=0, le=268_435_456)] = 0

    @property
    def shown_bytes(self) -> int:
        """Results up to this size are shown as they are."""
        return self.threshold_bytes or 2048

    @property
    def preview(self) -> int:
        """Bytes of a result's beginning in its digest."""
        return self.preview_bytes or 200

    @property
    def most_bytes(self) -> int:
        """Of all results that one task keeps so."""
        return self.max_total_bytes or 52_428_800


class Advisor(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """Another agent, or another model, that the agent may ask for advice by the tool `consult_<name>`."""

    name: str
    agent: str = ""
    """A declared agent; its model and prompt are asked, without its tools. Empty: `model` is."""
    model: str = ""
    system_prompt: str = ""
    instructions: str = ""
    """When to ask it: the tool's description."""
    tool_name: str = ""
    """Empty: `consult_<name>`."""
    recent_messages: Annotated[int, Meta(ge=1, le=200)] = 20
    max_calls_per_task: Annotated[int, Meta(ge=1, le=50)] = 3
    timeout_s: Annotated[float, Meta(ge=5, le=300)] = field(default=60.0, name="timeoutSeconds")
    max_advisor_tokens_per_task: _COUNT = 0
    """Input and output tokens of all its answers in one task; 0: no limit of its own."""
    max_context_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 262_144
    exclude_system_prompt: bool = False

    def __post_init__(self) -> None:
        """Raise `ValueError` for one that cannot be asked."""
        if self.agent and self.model:
            raise ValueError(f"advisor {self.name[:100]!r} has both an agent and a model: give one of them")
        if not is_tool_name(self.tool):
            raise ValueError(
                f"advisor {self.name[:100]!r} has no name for a tool: use a-z, 0-9 and '_', or give a toolName"
            )

    @property
    def tool(self) -> str:
        """The name of its tool."""
        return self.tool_name or consult_name(self.name)


class LoopPolicy(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, rename="camel"):
    """What happens around the tool calls of a run, beside making them."""

    dedup: bool = False
    """A call that was made before with the same arguments, and succeeded, is not made again."""
    compression: Compression | None = None
    memory: LoopMemory | None = None
    sandbox: SandboxPolicy | None = None
    advisors: tuple[Advisor, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` for two tools with one name."""
        names = [advisor.tool for advisor in self.advisors]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"two advisors have the tool {twice!r}: give one of them another toolName")

    @property
    def is_on(self) -> bool:
        """Whether it does anything."""
        has_memory = self.memory is not None and self.memory.is_on
        return bool(self.dedup or self.compression or has_memory or self.sandbox or self.advisors)


def in_force(*policies: LoopPolicy | None) -> LoopPolicy | None:
    """The first of them that is given; None if that, or none, does anything."""
    policy = next((each for each in policies if each is not None), None)
    return policy if policy is not None and policy.is_on else None


def is_tool_name(name: str) -> bool:
    """Whether an advisor's tool may be called so."""
    return _TOOL_NAME.fullmatch(name) is not None


def consult_name(name: str) -> str:
    """The tool of an advisor: lower case, `_` for `-`, and nothing but a-z, 0-9 and `_`. The rule is kubeswarm's."""
    plain = re.sub(r"[^a-z0-9_]", "", name.lower().replace("-", "_"))
    plain = re.sub(r"_+", "_", plain).strip("_")
    return f"consult_{plain}" if plain else ""


def _only_one(first: str, value: float | None, second: str, other: float | None) -> None:
    if value and other:
        raise ValueError(f"{first} and {second} are two names of one number: give one of them")
