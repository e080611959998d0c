"""Agents and inline roles -> `Role`."""

from __future__ import annotations

from typing import Any, cast

from providers import AgentConfig
from providers.messages import Thinking
from worker.teams.kinds.approvals import approval_of
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.environment import Environment
from worker.teams.kinds.loops import compile_loop
from worker.teams.kinds.memories import compile_memory
from worker.teams.kinds.objects import Fields
from worker.teams.kinds.prompts import Prompts
from worker.teams.kinds.scripts import options_of
from worker.teams.kinds.tools import Tools, tool_patterns
from worker.teams.plan import Capability, Role, SavedAs

_CONCURRENT = 5
"""Tasks that one replica does at a time, where only the replicas are given. The number is ark's."""
_GONE = {
    "systemPrompt": "prompt.inline",
    "mcpServers": "tools.mcp",
    "settingsRefs": "settings",
    "replicas": "runtime.replicas",
}


class Agents:
    """Compiles agents. Each document is compiled once, however many roles it is."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._prompts = Prompts(documents)
        self._tools = Tools(documents)
        self._environment = Environment(documents)
        self._known: dict[str, Role] = {}

    def of_document(self, name: str) -> Role | None:
        """The role of an agent's document, by the agent's name; None if there is no such document."""
        if name in self._known:
            return self._known[name]
        document = self._documents.find(name, "agent")
        if document is None:
            return None
        role = self.compile(name, document.spec, is_swarm=document.is_swarm)
        if not (document.spec.text("model") or document.spec.text("provider")):
            self._documents.findings.note_once(
                f"no model {name}", document.node, f"{document.kind} {name!r} has no model: the worker's own is used"
            )
        self._known[name] = role
        return role

    def compile(self, name: str, spec: Fields, *, is_swarm: bool) -> Role:
        """A role with all that an agent may say."""
        if is_swarm:
            self._note_older(spec)
        servers, said = self._tools.servers(spec)
        self._environment.gather(spec)
        approve = spec.get("requireApproval") or ()
        policy, advisors = compile_loop(name, spec, self._documents, self._advising)
        return Role(
            name=name,
            description=spec.text("description"),
            config=self._config(spec, self._prompts.compose(spec, said)),
            mcp_servers=servers,
            webhook_tools=self._tools.webhooks(spec),
            approve_tools=tool_patterns((approve,) if isinstance(approve, str) else tuple(approve)),
            approval=approval_of(spec.get("approval")),
            max_parallel=_max_parallel(spec),
            timeout_s=float(_limit(spec, "timeoutSeconds") or 0),
            daily_tokens=_limit(spec, "dailyTokens", "maxDailyTokens"),
            memory=compile_memory(spec, self._documents),
            loop_policy=policy,
            advisors=advisors,
            capabilities=tuple(_capability(found) for found in spec.many("capabilities")),
            save_output=_saved(spec.one("runtime").one("artifacts")),
        )

    def _config(self, spec: Fields, prompt: str) -> AgentConfig:
        given: dict[str, Any] = {}
        if tokens := _limit(spec, "tokensPerCall", "maxTokensPerCall"):
            given["max_tokens"] = tokens
        if (temperature := self._temperature(spec)) is not None:
            given["temperature"] = temperature
        if "maxTurns" in spec:
            given["max_turns"] = spec.whole("maxTurns")
        permissions = spec.one("guardrails").one("tools")
        tools = spec.get("tools")
        if "allow" in permissions:
            given["tools"] = tool_patterns(permissions.texts("allow"))
        if isinstance(tools, Fields) and "allow" in tools:
            given["tools"] = tool_patterns(tools.texts("allow"))
        return AgentConfig(
            model=spec.text("model"),
            provider=spec.text("provider"),
            system_prompt=prompt,
            thinking=_thinking(self._reasoning(spec), _limit(spec, "maxThinkingTokensPerCall")),
            api_key_env=self._environment.api_key_variable(spec),
            options=options_of(spec, self._documents),
            **given,
        )

    def _advising(self, document: Document) -> AgentConfig:
        """What another agent is asked with for its advice: its model and prompt, without its tools."""
        self._environment.gather(document.spec)
        return self._config(document.spec, self._prompts.compose(document.spec, ()))

    def _temperature(self, spec: Fields) -> float | None:
        found = spec.get("temperature")
        for document in self._prompts.settings(spec) if found is None else ():
            found = document.spec.get("temperature", found)
        return None if found is None else float(found)

    def _reasoning(self, spec: Fields) -> Fields:
        if "reasoning" in spec:
            return spec.one("reasoning")
        found = [document.spec for document in self._prompts.settings(spec) if "reasoning" in document.spec]
        return (found[-1] if found else spec).one("reasoning")

    def _note_older(self, spec: Fields) -> None:
        for name, now in _GONE.items():
            if name in spec:
                self._documents.findings.note_once(
                    f"older {name}", spec.key(name), f"kubeswarm itself no longer reads {name} here, but {now}"
                )
        limits = spec.one("limits")
        if "maxTokensPerCall" in limits:
            self._documents.findings.note_once(
                "older maxTokensPerCall",
                limits.key("maxTokensPerCall"),
                "kubeswarm itself no longer reads maxTokensPerCall here, but tokensPerCall",
            )


def _limit(spec: Fields, *names: str) -> int:
    for limits in (spec.one("guardrails").one("limits"), spec.one("limits")):
        for name in names:
            if name in limits:
                return limits.whole(name)
    return 0


def _saved(artifacts: Fields) -> SavedAs:
    return cast("SavedAs", artifacts.text("format") or "text") if artifacts.get("saveOutput") else ""


def _max_parallel(spec: Fields) -> int:
    """Replicas times concurrent tasks; 0 if neither is given, or nothing may run at all in the original (0 replicas:
    there, somebody scales it up)."""
    concurrent = _limit(spec, "concurrentTasks", "maxConcurrentTasks")
    replicas = spec.one("runtime").whole("replicas", spec.whole("replicas"))
    if not concurrent and not replicas:
        return 0
    return (replicas or 1) * (concurrent or _CONCURRENT)


def _thinking(reasoning: Fields, most: int) -> Thinking | None:
    if reasoning.get("mode", "Disabled") == "Disabled":
        return None
    budget = reasoning.get("budgetTokens")
    if budget is not None and most:
        budget = min(budget, most)
    return Thinking(budget_tokens=budget, effort=reasoning.text("effort").lower())


def _capability(found: Fields) -> Capability:
    return Capability(
        name=found.text("name") or found.text("id"),
        description=" ".join(found.text("description").split()),
        tags=found.texts("tags"),
    )
