"""How a run gets its loop policy: from what the policy says, and what the run's journal tells."""

from __future__ import annotations

import structlog
from msgspec.structs import replace

from providers import AgentConfig, ToolCall
from worker.agents import ResolvedAgent
from worker.journal import Sandboxed
from worker.loop_policy.advice import Advice
from worker.loop_policy.advisor_configs import config_of, other_model
from worker.loop_policy.compression import INSTRUCTIONS, MOST_TOKENS, Compressor, Filled, fitting
from worker.loop_policy.earlier import earlier_of
from worker.loop_policy.findings import Findings
from worker.loop_policy.harmless import Harmless
from worker.loop_policy.model import Compression, LoopMemory, LoopPolicy
from worker.loop_policy.overhearing import Overheard
from worker.loop_policy.places import placed
from worker.loop_policy.policies import LoopPolicies
from worker.loop_policy.repeats import Repeats
from worker.loop_policy.run_policy import RunPolicy
from worker.loop_policy.sandbox import Sandbox
from worker.loop_policy.side_calls import Answer, RunParts, SideCalls
from worker.teams.marks import Marks
from worker.teams.memory.shortening import shortened
from worker.teams.plan import MemorySpec

CHEAP_MODEL = "claude-haiku-4-5-20251001"
"""Sums up for agents of its vendor, if their policy names no model. Source: ark."""
FINDING_PROMPT = (
    "Sum up the result of a tool call that follows in a few sentences: what was found, with its figures, names and "
    "addresses. Write nothing but the summary."
)
FINDING_LIMIT_S = 10.0
WINDOW_LIMIT_S = 15.0

log = structlog.get_logger(__name__)


class PolicyOfRun:
    """What the parts of one run's policy have in common, and how they are put together."""

    def __init__(
        self, policies: LoopPolicies, policy: LoopPolicy, run: RunParts, agent: ResolvedAgent, marks: Marks | None
    ) -> None:
        self._policies = policies
        self._policy = policy
        self._run = run
        self._agent = agent
        self._marks = marks
        self._earlier = earlier_of(run.entries)
        self._calls = SideCalls(run)
        self._harmless = Harmless(run.task.id, policies.rests, policies.figures)

    def begin(self) -> RunPolicy:
        """The policy of a run that begins, or goes on."""
        policy, overheard = self._policy, None
        if policy.advisors:
            overheard = Overheard(self._run.task, self._run.finished)
        memory, findings = policy.memory, self._findings()
        keeps = findings is not None and memory is not None and memory.store
        return RunPolicy(
            catalogue=self._policies.catalogue(policy),
            harmless=self._harmless,
            repeats=Repeats(self._earlier.done) if policy.dedup else None,
            findings=findings,
            recalls=memory is not None and memory.retrieve,
            shorten=self._shortened if keeps else None,
            compressor=self._compressor(),
            sandbox=self._sandbox(),
            advice=None if overheard is None else self._advice(overheard),
            overheard=overheard,
            did=self._policies.figures.did,
        )

    # Findings

    def _findings(self) -> Findings | None:
        memory = self._policy.memory
        if memory is None or not memory.is_on or (place := self._place(memory)) is None:
            return None
        return Findings(
            memory,
            place,
            self._policies.collections,
            self._run.task,
            self._marks,
            attempt=self._run.delivery.next_attempt,
            count=self._earlier.begun,
        )

    def _place(self, memory: LoopMemory) -> MemorySpec | None:
        """A role's own vector memory comes first, with the vectors that it has."""
        role, policies = self._agent.role, self._policies
        if role is not None and role.memory is not None and role.memory.backend == "vector-store":
            return replace(role.memory, min_similarity=memory.similarity or role.memory.min_similarity)
        if (place := policies.place()) is None:
            return None
        config, app = self._agent.config, self._agent.app
        provider = self._run.around.providers.name_of(config)
        return placed(place, memory, policies.settings, config, provider, app="" if app is None else app.slug)

    async def _shortened(self, call: ToolCall, text: str) -> str:
        """What is kept of a result."""
        memory = self._policy.memory or LoopMemory()
        if memory.summary_tokens and len(text) > 4 * memory.summary_tokens:
            config = self._summing(FINDING_PROMPT, memory.summary_tokens)

            async def ask() -> Answer:
                asked = fitting(f"Tool: {call.name}\n\nResult:\n{text}", await self._policies.windows.of(config))
                question = f"{call.name} {call.arguments}"
                return await self._calls.ask("finding", config, asked, call_id=call.id, question=question)

            answer = await self._harmless.attempt("finding", ask, limit_s=FINDING_LIMIT_S)
            if answer is not None and answer.text.strip():
                return answer.text
        return shortened(text, memory.most_chars)

    # Compression

    def _compressor(self) -> Compressor | None:
        compression = self._policy.compression
        if compression is None:
            return None
        return Compressor(
            limit_tokens=compression.context_window * compression.share or None,
            find_limit=lambda: self._limit_tokens(compression),
            sum_up=lambda filled: self._summed_up(compression, filled),
            earlier=self._earlier.results,
        )

    async def _limit_tokens(self, compression: Compression) -> float | None:
        """None: nobody knows how much the agent's model can read."""
        config = self._agent.config
        window = await self._harmless.attempt(
            "compression", lambda: self._policies.windows.of(config), limit_s=WINDOW_LIMIT_S
        )
        if not window:
            log.warning(
                "results of tools are not summed up: the window of the agent's model is not known, set contextWindow",
                task=self._run.task.id,
                model=config.model or config.route,
            )
            return None
        return window * compression.share

    async def _summed_up(self, compression: Compression, filled: Filled) -> str | None:
        config = self._summing(compression.instructions or INSTRUCTIONS, MOST_TOKENS)

        async def ask() -> str:
            asked = fitting(filled.text, await self._policies.windows.of(config))
            return (await self._calls.ask("compression", config, asked, call_id=filled.call_id)).text.strip()

        summary = await self._harmless.attempt("compression", ask, limit_s=compression.limit_s)
        if summary:
            self._policies.figures.did("compressed")
        return summary

    def _summing(self, instructions: str, max_tokens: int) -> AgentConfig:
        """What sums up: the policy's model; else a cheap one of the agent's vendor, or the agent's own."""
        agent, compression = self._agent, self._policy.compression or Compression()
        config = replace(
            agent.config, system_prompt=instructions, max_tokens=max_tokens, thinking=None, temperature=None, stop=()
        )
        name_of = self._run.around.providers.name_of
        model = compression.model
        if not model and not (agent.app or config.route or config.base_url) and name_of(config) == "anthropic":
            model = CHEAP_MODEL
        return other_model(config, agent, model, name_of) if model else config

    # Long results, and advice

    def _sandbox(self) -> Sandbox | None:
        policy, run = self._policy.sandbox, self._run
        outputs = run.around.outputs
        if policy is None:
            return None
        if outputs is None:
            log.warning(
                "long results of tools are not kept apart: storing them is off, see SHOAL_MAX_STORED_OUTPUT_CHARS",
                task=run.task.id,
            )
            return None

        def note(number: int, call_id: str, size_bytes: int) -> None:
            entry = Sandboxed(worker=run.delivery.worker, number=number, call_id=call_id, size_bytes=size_bytes)
            run.chunks.note(*run.around.journal.records(run.task.id, entry))

        return Sandbox(
            policy,
            outputs.of(run.task.id, run.chunks.note_kept),
            most_chars=outputs.max_chars,
            earlier=self._earlier.sandboxed,
            note=note,
        )

    def _advice(self, overheard: Overheard) -> Advice:
        around, agent, task = self._run.around, self._agent, self._run.task
        return Advice(
            config=agent.config,
            config_of=lambda advisor: config_of(advisor, agent, around.agents, task, around.providers.name_of),
            calls=self._calls,
            overheard=overheard,
            consulted=self._earlier.consulted,
            telemetry=around.telemetry,
            figures=self._policies.figures,
        )
