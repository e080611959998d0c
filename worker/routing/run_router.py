"""Chooses the targets of one run: where each call goes, and where it goes on when one fails."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from providers import (
    AgentConfig,
    ChatProvider,
    ContextTooLong,
    LLMProvider,
    ProviderError,
    TurnRequest,
)
from providers.pricing import PriceBook
from providers.turn_routing import CallEnd, Switch, Target
from queue_backends import CallOutcome, QueueError, Task
from worker.errors import Postponed
from worker.routing.breaker import Permit
from worker.routing.errors import AllTargetsFailed, UnfitTarget
from worker.routing.route import Route, RouteTarget
from worker.routing.routing_metrics import RoutingMetrics
from worker.routing.sessions import Sessions
from worker.routing.strategies import ordered
from worker.routing.target_state import TargetState, TargetStates
from worker.routing.verdicts import Verdict, hedge_outcome, one_line, reason_of, verdict_of
from worker.routing.windows import window_of

_LEAST_POSTPONED_S = 0.5
_MOST_POSTPONED_S = 60.0
_UNHEALTHY_S = 10.0
"""Nobody knows when an unhealthy provider is well again: so long until a task that has nowhere to go looks again."""

log = structlog.get_logger(__name__)

Take = Callable[[AgentConfig], Awaitable[LLMProvider]]
"""Gives the instance of a configuration's provider, which stays the same for the whole run."""


class Away(NamedTuple):
    """Why a target is not asked at present."""

    reason: str
    said: str
    retry_in_s: float | None
    """None: waiting does not help."""

    def error(self) -> Exception:
        """The same as an error."""
        if self.retry_in_s is None:
            return UnfitTarget(self.said)
        return Postponed(self.said, retry_in_s=self.retry_in_s)


class RunRouter:
    """The `TurnRouter` of one run. The run keeps the route that it began with, and the target that answers it for as
    long as that works."""

    def __init__(
        self,
        route: Route,
        agent: AgentConfig,
        task: Task,
        *,
        take: Take,
        states: TargetStates,
        sessions: Sessions,
        prices: PriceBook,
        metrics: RoutingMetrics,
        is_healthy: Callable[[str], bool],
        answered_before: str = "",
        random_: Callable[[], float] = random.random,
    ) -> None:
        """`answered_before`: the target that answered an earlier delivery of the task last."""
        self.route = route
        self.hedge_after_s = route.hedge_after_s if len(route.targets) > 1 else None
        self._agent = agent
        self._task = task
        self._take = take
        self._states = states
        self._sessions = sessions
        self._prices = prices
        self._metrics = metrics
        self._is_healthy = is_healthy
        self._random = random_
        self._current = answered_before
        """The name of the target that the run stays with."""
        self._session: tuple[str, float] | None = None
        """What was known of the session when the run began."""
        self._is_noted = False
        self._failed: dict[str, Exception] = {}
        """Targets that have had their try in this turn, in that order."""
        self._too_small: set[str] = set()
        """Targets whose window is no larger than one that the conversation did not fit into."""
        self._unsure: set[str] = set()
        """Those whose window nobody knows, once that matters: they are asked after the others."""
        self._settings_of: dict[str, int] = {}
        """Provider -> which of its settings the run's instance has, by the number of their changes."""
        self._reserved: dict[int, tuple[str, Permit]] = {}
        """`id` of a reserved target -> its name, and the permit of its circuit."""

    # What the loop asks

    async def first(self, request: TurnRequest) -> Target:
        """Where a turn begins: with the run's own target, or the session's, else as the strategy says.

        Raises `Postponed` if no target can be asked at present, `AllTargetsFailed` if none will ever be.
        """
        if self._session is None:
            self._session = await self._sessions.target_of(self.route, self._task)
            self._current = self._current or self._session[0]
        self._failed.clear()
        found = await self._choose(preferred=self._current)
        if found is None:
            raise self._nobody()
        return found

    async def next(self, error: Exception) -> Target | None:
        """The next target that has not had its try in this turn."""
        if isinstance(error, ContextTooLong):
            await self._leave_small_windows(next(reversed(self._failed)))
        return await self._choose(because=error)

    async def second(self, beside: int) -> Target | None:
        """Another target, beside one that says nothing."""
        return await self._choose(beside=beside, slow=self._under_way()[-1])

    def again(self, target: Target) -> Target:
        """The same target once more."""
        repeated = replace(target, switch=None)
        self._reserve(self._by_name(target.name), repeated)
        return repeated

    def ended(self, target: Target, end: CallEnd) -> None:
        """Note what a call tells of its target."""
        state = self._states.of(self._by_name(target.name))
        state.in_flight -= 1
        permit = self._reserved.pop(id(target))[1]
        if self._settings_of.get(target.config.provider) == self._states.changes(target.config.provider):
            self._settle(state, permit, end)
        else:  # the run has an instance with settings that no new run has
            state.breaker.abandoned(permit)
        if isinstance(end.error, Exception):
            self._failed[target.name] = end.error
        if target.switch is not None and target.switch.beside is not None:
            self._metrics.hedged(self.route.name, target.name, hedge_outcome(end))

    async def answered(self, target: Target) -> None:
        """Stay with a target that works; the session does, too."""
        self._current = target.name
        if not self._is_noted:
            self._is_noted = True
            await self._sessions.note(self.route, self._task, target.name, self._session or ("", 0.0))

    def passes_over(self, error: Exception) -> bool:
        """Where there is no room under one target's limit, there may be some under another's."""
        return isinstance(error, Postponed)

    def exhausted(self, error: Exception) -> Exception:
        """Names every target's reason; where there is one target alone, its own error does. If calls have only been
        kept from being sent, the task comes again."""
        reasons = self._reasons()
        if len(reasons) < 2:
            return error
        postponed = [reason for reason in reasons.values() if isinstance(reason, Postponed)]
        if len(postponed) == len(reasons):
            return self._postponed(postponed)
        return AllTargetsFailed(self.route.name, reasons)

    def _nobody(self) -> Exception:
        """What to raise if no call was made because no target can be asked: the task waits, if that may help."""
        reasons = self._reasons()
        postponed = [reason for reason in reasons.values() if isinstance(reason, Postponed)]
        return self._postponed(postponed) if postponed else AllTargetsFailed(self.route.name, reasons)

    def _reasons(self) -> dict[str, Exception]:
        """Why each target gave no answer in this turn."""
        reasons = dict(self._failed)
        for target in self.route.targets:
            if target.name in reasons:
                continue
            if target.name in self._too_small:
                reasons[target.name] = ContextTooLong("its window is too small for this conversation")
            elif (away := self._away(target)) is not None:
                reasons[target.name] = away.error()
        return reasons

    def _postponed(self, reasons: list[Postponed]) -> Postponed:
        soonest_s = min(max(min(reason.retry_in_s for reason in reasons), _LEAST_POSTPONED_S), _MOST_POSTPONED_S)
        said = "; ".join(f"{target}: {reason}" for target, reason in self._reasons().items())
        return Postponed(
            f"route {self.route.name}: no target can be called at present: {said}",
            retry_in_s=soonest_s * (1 + self._random() / 2),
        )

    # Choosing

    async def _choose(
        self, *, preferred: str = "", because: Exception | None = None, beside: int | None = None, slow: str = ""
    ) -> Target | None:
        """The first target, in order, that can be asked. What cannot be called at all counts as failed.

        With `beside` it goes beside that call, at the target `slow`, which may have ended by the time one is found.
        """
        order = ordered(self.route, self._states, self._prices, self._task.session_id or self._task.id)
        order.sort(key=lambda target: (target.name != preferred, target.name in self._unsure))
        order = [target for target in order if target.name not in self._too_small]
        for position, declared in enumerate(order):
            if not self._is_free(declared):
                continue
            switch = self._switch(declared, order[0], because, beside, slow)
            others = any(self._is_free(other) for other in order[position + 1 :])
            try:
                return await self._opened(declared, switch, has_others=others)
            except ProviderError as error:
                self._failed[declared.name] = because = error
        return None

    def _is_free(self, target: RouteTarget) -> bool:
        """Whether it has not had its try, is not being asked, and can be."""
        return target.name not in self._failed and target.name not in self._under_way() and self._away(target) is None

    def _under_way(self) -> list[str]:
        return [name for name, _ in self._reserved.values()]

    def _away(self, target: RouteTarget) -> Away | None:
        """Why a target is not to be asked now; None if it is."""
        state = self._states.of(target)
        if not self._is_healthy(target.provider):
            return Away("unhealthy", f"provider {target.provider} is unhealthy", _UNHEALTHY_S)
        if not state.breaker.admits:
            said = f"its circuit is open after {one_line(state.why)}" if state.why else "its circuit is open"
            may_pass = not isinstance(state.why, ProviderError) or state.why.retryable
            return Away("circuit_open", said, state.breaker.retry_in_s if may_pass else None)
        if (rests_s := state.rests_s) > 0:
            return Away("rate_limited", f"it is rate limited for {rests_s:.0f} s", rests_s)
        return None

    def _switch(
        self, target: RouteTarget, head: RouteTarget, because: Exception | None, beside: int | None, slow: str
    ) -> Switch | None:
        """Why a call goes to `target`; None if it goes where it would go anyway."""
        if beside is not None:
            before, reason, error = slow, "slow", ""
        elif because is not None:
            before, reason, error = next(reversed(self._failed), head.name), reason_of(because), one_line(because)
        elif target is not head and (away := self._away(head)) is not None:
            before, reason, error = head.name, away.reason, away.said
        else:
            return None
        return Switch(
            route=self.route.name,
            target=target.name,
            provider=target.provider,
            model=target.model,
            before=before,
            reason=reason,
            error=error,
            beside=beside,
        )

    async def _opened(self, declared: RouteTarget, switch: Switch | None, *, has_others: bool) -> Target:
        config = declared.config_for(self._agent)
        if has_others:  # a request that waits for one vendor's limit had better go to another
            config = replace(config, max_retry_wait_s=min(config.max_retry_wait_s, self.route.retry_wait_s))
        provider = await self._taken(config)
        if not isinstance(provider, ChatProvider):
            raise UnfitTarget(f"provider {declared.provider} runs whole tasks: it cannot be one of a route's targets")
        target = Target(name=declared.name, provider=provider, config=config, switch=switch)
        self._reserve(declared, target)
        if switch is not None:
            self._tell(switch)
        return target

    async def _taken(self, config: AgentConfig) -> LLMProvider:
        """The run's instance of a provider. Raises a `ProviderError`, whatever it is that keeps it from being made."""
        self._settings_of.setdefault(config.provider, self._states.changes(config.provider))
        try:
            return await self._take(config)
        except (ProviderError, QueueError):
            raise
        except Exception as error:  # a provider is anybody's code, and other targets may do
            log.exception("a target's provider cannot be made", route=self.route.name, provider=config.provider)
            raise UnfitTarget(
                f"provider {config.provider} cannot be made: {type(error).__name__}: {one_line(error)}"
            ) from error

    def _reserve(self, declared: RouteTarget, target: Target) -> None:
        state = self._states.of(declared)
        state.in_flight += 1
        self._reserved[id(target)] = declared.name, state.breaker.begin()

    def _tell(self, switch: Switch) -> None:
        if switch.beside is None:
            self._metrics.failed_over(self.route.name, switch.before, switch.target, switch.reason)
        log.info(
            "a call goes to another target",
            task=self._task.id,
            route=self.route.name,
            target=switch.target,
            before=switch.before,
            reason=switch.reason,
        )

    def _by_name(self, name: str) -> RouteTarget:
        return next(target for target in self.route.targets if target.name == name)

    # What calls tell

    def _settle(self, state: TargetState, permit: Permit, end: CallEnd) -> None:
        policy, error = self.route.breaker, end.error
        if end.first_chunk_s is not None:
            state.took(end.first_chunk_s)
        match verdict_of(end):
            case Verdict.WELL:
                state.why = None
                state.breaker.succeeded(permit, policy)
            case Verdict.ILL | Verdict.FOR_GOOD as verdict:
                state.why = error
                state.breaker.failed(permit, policy, for_good=verdict is Verdict.FOR_GOOD)
            case Verdict.RESTS:
                state.breaker.abandoned(permit)
                state.rest(getattr(error, "retry_after_s", None) or 0.0)
            case Verdict.UNKNOWN:
                state.breaker.abandoned(permit)
                if end.outcome is CallOutcome.CANCELLED and end.first_chunk_s is None:
                    state.took_more_than(end.lasted_s)

    async def _leave_small_windows(self, name: str) -> None:
        """The conversation was too long for this target: never back to it, or to one whose window is no larger."""
        self._too_small.add(name)
        limit = await self._window(self._by_name(name))
        for other in self.route.targets:
            window = await self._window(other) if other.name not in self._too_small else None
            if window is None:
                self._unsure.add(other.name)
            elif limit is not None and window <= limit:
                self._too_small.add(other.name)

    async def _window(self, target: RouteTarget) -> int | None:
        config = target.config_for(self._agent)
        try:
            provider = await self._taken(config)
        except ProviderError:
            return target.max_context
        return await window_of(target, self._states.of(target), provider, config)
