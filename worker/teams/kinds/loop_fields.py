"""What an agent's document may say of its loop policy, and of the agents that it may ask for advice.

Sources: kubeswarm `api/v1alpha1/swarmagent_types.go`, `advisor_tool_name.go`.
"""

from __future__ import annotations

from worker.loop_policy.model import is_tool_name
from worker.teams.kinds.findings import Findings
from worker.teams.kinds.nodes import Node
from worker.teams.kinds.objects import Field, Fields, Object
from worker.teams.kinds.references import NAME, REFERENCE, only_one
from worker.teams.kinds.shapes import Flag, Number, OneOf, Text

_NOT_AS_TOOLS = "agents call each other in teams (canDelegate), not as tools: those with `role: advisor` give advice"


def _tool_name(text: str, node: Node, findings: Findings) -> None:
    if not is_tool_name(text):
        findings.error(
            node, f"{text[:100]!r} is no name of a tool: use a-z, 0-9 and '_', at most 63, and begin with a letter"
        )


_SANDBOX = Object(
    {
        "thresholdBytes": Field(Number(least=256, most=1_048_576)),
        "previewBytes": Field(Number(least=50, most=4096)),
        "maxTotalBytes": Field(Number(least=1_048_576, most=268_435_456)),
    },
    "a loop's sandbox",
)
_COMPRESSION = Object(
    {
        "threshold": Field(Number(least=0, most=1, is_whole=False)),
        "thresholdPercent": Field(Number(least=1, most=100)),
        "preserveRecentTurns": Field(Number(least=0, most=1000)),
        "model": Field(Text()),
        "timeoutSeconds": Field(Number(least=1, most=600)),
        "contextWindow": Field(Number(least=0, most=1_000_000_000)),
        "instructions": Field(Text()),
    },
    "a loop's compression",
    rules=(only_one("threshold", "thresholdPercent"),),
)
_MEMORY = Object(
    {
        "ref": Field(REFERENCE),
        "store": Field(Flag()),
        "retrieve": Field(Flag()),
        "topK": Field(Number(least=1, most=100)),
        "minSimilarity": Field(Number(least=0, most=1, is_whole=False)),
        "minSimilarityPercent": Field(Number(least=0, most=100)),
        "summaryTokens": Field(Number(least=0, most=100_000)),
        "maxTokens": Field(Number(least=0, most=1_000_000)),
    },
    "a loop's memory",
    rules=(only_one("minSimilarity", "minSimilarityPercent"),),
)
LOOP = Object(
    {
        "dedup": Field(Flag()),
        "sandbox": Field(_SANDBOX),
        "compression": Field(_COMPRESSION),
        "memory": Field(_MEMORY),
    },
    "a loop policy",
)
_CONTEXT = Object(
    {
        "recentMessages": Field(Number(least=1, most=200)),
        "maxCallsPerTask": Field(Number(least=1, most=50)),
        "timeoutSeconds": Field(Number(least=5, most=300)),
        "maxAdvisorTokensPerTask": Field(Number(least=0, most=1_000_000_000)),
        "maxContextBytes": Field(Number(least=1024, most=1_048_576)),
        "excludeSystemPrompt": Field(Flag()),
        "toolName": Field(Text(check=_tool_name)),
    },
    "an advisor's context",
)


def _is_whole(found: Fields, findings: Findings) -> None:
    if found.text("role") != "advisor":
        findings.note_once("agents as tools", found.node, _NOT_AS_TOOLS)
        if "contextPropagation" in found:
            findings.error(found.key("contextPropagation"), "contextPropagation is for agents with `role: advisor`")
    elif "agentRef" not in found:
        findings.error(found.node, "an advisor needs 'agentRef': the agent that gives the advice")


CONNECTION = Object(
    {
        "name": Field(NAME, is_required=True),
        "agentRef": Field(REFERENCE),
        "capabilityRef": Field(REFERENCE),
        "role": Field(OneOf(("tool", "advisor"))),
        "instructions": Field(Text()),
        "trust": Field(
            Text(), use="noted", note="there are no trust levels: arguments always have to fit the tool's schema"
        ),
        "contextPropagation": Field(_CONTEXT),
    },
    "an agent's connection",
    rules=(_is_whole,),
)
