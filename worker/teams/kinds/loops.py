"""Loop policies and advisors of agents' documents -> `LoopPolicy`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from providers import AgentConfig
from worker.loop_policy.model import (
    Advisor,
    Compression,
    LoopMemory,
    LoopPolicy,
    SandboxPolicy,
    consult_name,
    is_tool_name,
)
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.references import name_of
from worker.teams.kinds.tools import is_denied

ConfigOf = Callable[[Document], AgentConfig]
"""What the agent of a document is asked with."""


def compile_loop(
    name: str, spec: Fields, documents: Documents, config_of: ConfigOf
) -> tuple[LoopPolicy | None, dict[str, AgentConfig]]:
    """An agent's policy, None if it says nothing of one; and by name what its advisors are asked with."""
    runtime, advisors = spec.one("runtime"), list(_advisors(name, spec, documents))
    if "loop" not in runtime and not advisors:
        return None, {}
    loop = runtime.one("loop")
    policy = LoopPolicy(
        dedup=bool(loop.get("dedup")),
        sandbox=_sandbox(loop),
        compression=_compression(loop),
        memory=_memory(loop, documents),
        advisors=tuple(advisor for advisor, _ in advisors),
    )
    return policy, {advisor.name: config_of(document) for advisor, document in advisors}


def _sandbox(loop: Fields) -> SandboxPolicy | None:
    if "sandbox" not in loop:
        return None
    found = loop.one("sandbox")
    return SandboxPolicy(
        threshold_bytes=found.whole("thresholdBytes"),
        preview_bytes=found.whole("previewBytes"),
        max_total_bytes=found.whole("maxTotalBytes"),
    )


def _compression(loop: Fields) -> Compression | None:
    if "compression" not in loop:
        return None
    found = loop.one("compression")
    return Compression(
        threshold=found.get("threshold"),
        threshold_percent=found.get("thresholdPercent"),
        preserve_recent_turns=found.whole("preserveRecentTurns", 4),
        context_window=found.whole("contextWindow"),
        model=found.text("model"),
        timeout_s=float(found.whole("timeoutSeconds")),
        instructions=found.text("instructions"),
    )


def _memory(loop: Fields, documents: Documents) -> LoopMemory | None:
    """Of the tool calls. What the role remembers of its tasks is `worker.teams.kinds.memories`' affair."""
    found = loop.one("memory")
    if not (found.get("store") or found.get("retrieve")):
        return None
    document = documents.find(name_of(found.get("ref")), "memory")
    if document is not None and document.spec.get("backend", "in-context") != "vector-store":
        documents.findings.note_once(
            f"findings in {document.name}",
            found.at("ref"),
            f"what tools find is kept in vector stores alone, and {document.name!r} is none: its role remembers its "
            "tasks there",
        )
        return None
    return LoopMemory(
        store=bool(found.get("store")),
        retrieve=bool(found.get("retrieve")),
        top_k=found.whole("topK"),
        min_similarity=found.get("minSimilarity"),
        min_similarity_percent=found.get("minSimilarityPercent"),
        summary_tokens=found.whole("summaryTokens"),
        max_tokens=found.whole("maxTokens"),
    )


def _advisors(name: str, spec: Fields, documents: Documents) -> Iterator[tuple[Advisor, Document]]:
    taken: set[str] = set()
    for found in spec.many("agents"):
        if found.text("role") != "advisor" or "agentRef" not in found:
            continue
        asked = documents.refer(name_of(found.get("agentRef")), found.at("agentRef"), "agent", what="agent")
        context = found.one("contextPropagation")
        tool = context.text("toolName") or consult_name(found.text("name"))
        is_told = "toolName" in context and not is_tool_name(tool)
        if asked is None or is_told or is_denied(tool, spec):
            continue
        problem = _problem(name, asked, tool, taken)
        if problem:
            documents.findings.error(found.node, problem)
            continue
        taken.add(tool)
        yield _advisor(found, context, asked.name), asked


def _problem(name: str, asked: Document, tool: str, taken: set[str]) -> str:
    if asked.name == name:
        return f"agent {name!r} may not be its own advisor"
    if any(each.text("role") == "advisor" for each in asked.spec.many("agents")):
        return f"advisor {asked.name!r} has advisors itself: nobody asks beyond the first one"
    if not is_tool_name(tool):
        return "the advisor's name makes no name for a tool: use letters and digits, or give a toolName"
    return f"two advisors have the tool {tool!r}: give one of them another toolName" if tool in taken else ""


def _advisor(found: Fields, context: Fields, agent: str) -> Advisor:
    given: dict[str, Any] = {
        "recent_messages": context.get("recentMessages"),
        "max_calls_per_task": context.get("maxCallsPerTask"),
        "timeout_s": context.get("timeoutSeconds"),
        "max_advisor_tokens_per_task": context.get("maxAdvisorTokensPerTask"),
        "max_context_bytes": context.get("maxContextBytes"),
    }
    return Advisor(
        name=found.text("name"),
        agent=agent,
        instructions=found.text("instructions"),
        tool_name=context.text("toolName"),
        exclude_system_prompt=bool(context.get("excludeSystemPrompt")),
        **{field: value for field, value in given.items() if value is not None},
    )
