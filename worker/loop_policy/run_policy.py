"""The loop policy of one run: what happens around its tool calls.

For each call, in this order (ark's): a repeated one is skipped; findings of similar calls are looked up; the call is
made, and a failure is returned as it is; a long result is kept apart; if the results have filled the model's window,
they are summed up; the result is kept as a finding; what was looked up is put before it.

The tools that Shoal brings itself are neither skipped nor remembered: what they answer changes, or they make something.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec.structs import replace

from providers import ToolCall, ToolOutcome, ToolSpec
from providers.tool_loop import LoopObserver
from worker.loop_policy.advice import Advice
from worker.loop_policy.compression import Compressor
from worker.loop_policy.consult import KIND as ADVISOR
from worker.loop_policy.findings import Findings
from worker.loop_policy.harmless import Harmless
from worker.loop_policy.overhearing import Overheard, Overhearing
from worker.loop_policy.repeats import SKIPPED, Repeats
from worker.loop_policy.sandbox import Sandbox
from worker.tools.catalogue import ToolCatalogue

FINDINGS_LIMIT_S = 15.0
"""So long a call waits for what is to be recalled, and for what is to be kept. Source: ark."""
_SANDBOX_LIMIT_S = 30.0
_OWN = frozenset({"builtin", ADVISOR})
"""Kinds of tools that the worker brings itself."""

Made = Callable[[], Awaitable[ToolOutcome]]
"""Makes a call."""
StoreRaw = Callable[[ToolOutcome], Awaitable[None]]
"""Stores what the model reads of a call if its run is interrupted now."""
Shorten = Callable[[ToolCall, str], Awaitable[str]]
"""What is kept of a result: its beginning, or a summary."""

log = structlog.get_logger(__name__)


class RunPolicy:
    """Made by `worker.loop_policy.beginning`."""

    def __init__(
        self,
        *,
        catalogue: ToolCatalogue,
        harmless: Harmless,
        repeats: Repeats | None,
        findings: Findings | None,
        recalls: bool,
        shorten: Shorten | None,
        compressor: Compressor | None,
        sandbox: Sandbox | None,
        advice: Advice | None,
        overheard: Overheard | None,
        did: Callable[[str], None],
    ) -> None:
        """`shorten` is given where findings are kept, `compressor` where results are summed up."""
        self.catalogue = catalogue
        """The tools that the policy brings."""
        self.sandbox = sandbox
        self.advice = advice
        self._harmless = harmless
        self._repeats = repeats
        self._findings = findings
        self._recalls = recalls
        self._shorten = shorten
        self._compressor = compressor
        self._overheard = overheard
        self._did = did
        self._whole: dict[str, str] = {}
        """Call id -> the whole of a result of which the model reads a digest, for what is kept of it."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """The tools that the policy brings."""
        return self.catalogue.specs()

    def beside(self, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """All tools that the model is told of: of two with the same name, the policy's own."""
        own = self.specs
        names = {spec.name for spec in own}
        return (*(spec for spec in specs if spec.name not in names), *own)

    def listening(self, observer: LoopObserver) -> LoopObserver:
        """The run's observer, and beside it what advisors are told."""
        return observer if self._overheard is None else Overhearing(observer, self._overheard)

    async def govern(self, call: ToolCall, spec: ToolSpec | None, make: Made, store_raw: StoreRaw) -> ToolOutcome:
        """The outcome of a call as the model reads it. `make` makes the call; it is not made if it was before. What it
        answers is stored by `store_raw` before anything is done with it that takes long."""
        governed = functools.partial(self._governed, call, spec, make, store_raw)
        if self._repeats is None or (spec is not None and spec.kind in _OWN):
            outcome = await governed()
        else:
            outcome = await self._repeats.once(call, governed)
            if outcome.content == SKIPPED:
                self._did("skipped")
                log.debug("a tool call is not made twice", tool=call.name)
        self.heard(call, outcome)
        return outcome

    def heard(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """What a call has come to, also one that was made by an earlier delivery."""
        if self._overheard is not None:
            self._overheard.tool_ended(call, outcome)

    async def digest(self, call: ToolCall, text: str) -> str | None:
        """What the model reads instead of a long result; None: it reads all of it, as it does of advice."""
        sandbox = self.sandbox
        if sandbox is None or self.catalogue.spec(call.name) is not None:
            return None
        found = await self._harmless.attempt(
            "sandbox", lambda: sandbox.digest(call, text), limit_s=_SANDBOX_LIMIT_S, rests="outputs"
        )
        if found is not None:
            self._did("sandboxed")
            if self._shorten is not None:
                self._whole[call.id] = text
        return found

    async def _governed(self, call: ToolCall, spec: ToolSpec | None, make: Made, store_raw: StoreRaw) -> ToolOutcome:
        is_own = spec is not None and spec.kind in _OWN
        found = "" if is_own else await self._recalled(call)
        try:
            outcome = await make()
            if outcome.is_error:
                return outcome
            if self._takes_long(outcome.content, is_own=is_own):
                await store_raw(replace(outcome, content=found + outcome.content) if found else outcome)
            shown = await self._compressed(call, outcome.content)
            if not is_own:
                await self._kept(call, outcome.content)
        finally:
            self._whole.pop(call.id, None)
        return outcome if not found and shown == outcome.content else replace(outcome, content=found + shown)

    def _takes_long(self, content: str, *, is_own: bool) -> bool:
        """Whether others are asked before the model reads a result."""
        is_kept = self._shorten is not None and not is_own
        return is_kept or (self._compressor is not None and self._compressor.is_due(content))

    async def _recalled(self, call: ToolCall) -> str:
        findings = self._findings
        if findings is None or not self._recalls:
            return ""
        found = await self._harmless.attempt(
            "recall", lambda: findings.recall(call), limit_s=FINDINGS_LIMIT_S, rests=findings.where
        )
        if found:
            self._did("recalled")
        return found or ""

    async def _kept(self, call: ToolCall, content: str) -> None:
        findings, shorten = self._findings, self._shorten
        if findings is None or shorten is None:
            return
        whole = self._whole.get(call.id, content)

        async def keep() -> bool:
            await findings.keep(call, await shorten(call, whole))
            return True

        if await self._harmless.attempt("store", keep, limit_s=FINDINGS_LIMIT_S, rests=findings.where):
            self._did("stored")

    async def _compressed(self, call: ToolCall, content: str) -> str:
        if self._compressor is None:
            return content
        return await self._compressor.after(call.name, call.id, content)
