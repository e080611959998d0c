"""Who may fire a trigger, how often, and how many may wait for what comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from starlette.requests import Request

from worker.gateway.auth import Authenticator
from worker.gateway.caller import Caller, Scope
from worker.gateway.credentials import credential_of
from worker.gateway.keys import PREFIX as KEY_PREFIX
from worker.gateway.limits import FailureLimit, RequestLimits
from worker.gateway.problem import ErrorStyle, Problem
from worker.objects import Stored
from worker.teams.triggers.model import Trigger
from worker.teams.triggers.service import Triggers

if TYPE_CHECKING:
    from worker.definitions import Definitions
    from worker.gateway.keys import ApiKeys
    from worker.gateway.oidc import Oidc
    from worker.settings.gateway import GatewaySettings

MOST_WAITING: Final = 500
"""Connections that follow a run, and as many that wait for one. The number, and what is told, are kubeswarm's."""
PER_MINUTE: Final = 600
BURST: Final = 20
"""Requests of one address to one trigger: ten a second, twenty at once. Source: kubeswarm's webhook server."""


class TriggerDesk:
    """One per gateway."""

    def __init__(
        self,
        triggers: Triggers,
        definitions: Definitions,
        settings: GatewaySettings,
        keys: ApiKeys,
        oidc: Oidc | None = None,
        *,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self.triggers = triggers
        self._definitions = definitions
        self._auth = Authenticator(settings, keys, oidc)
        self._has_issuer = oidc is not None
        self._limits = RequestLimits(burst=BURST)
        self._failures = FailureLimit()
        self._most = most_waiting
        self._open = {"sse": 0, "sync": 0}

    async def admitted(self, request: Request, namespace: str, slug: str) -> tuple[Stored[Trigger], Caller]:
        """The trigger that a request may fire, and who fires it. Whoever may not learns nothing of what there is.

        By the trigger's own token (`Authorization: Bearer`, or `?token=`); by an API key, or an issuer's token, with
        the scope `tasks.write` whose tenant the trigger is; without anything as long as the gateway is open. Raises
        `Problem`.
        """
        client = request.state.client
        self._limits.take(f"{client} {namespace}/{slug}", PER_MINUTE)
        stored = self._definitions.triggers.get(slug, namespace)
        token = request.query_params.get("token", "") or credential_of(request, ErrorStyle.PROBLEM)
        caller = await self._caller_of(request, token, stored)
        if caller is not None and stored is not None:
            return stored, caller
        if token:
            self._failures.failed(client)
        raise Problem(
            401,
            f"there is no trigger {slug[:100]!r}, or this is not its token: `shoal trigger token` makes one; send it "
            "as 'Authorization: Bearer …'",
            code="unauthenticated",
            headers={"WWW-Authenticate": 'Bearer realm="shoal trigger"'},
        )

    async def _caller_of(self, request: Request, token: str, stored: Stored[Trigger] | None) -> Caller | None:
        if not token and self._auth.is_open:
            return await self._auth.caller_of(request, ErrorStyle.PROBLEM)
        if await self.triggers.tokens.opens(token, stored):
            slug = stored.value.slug if stored is not None else ""
            return Caller(id=f"trigger:{slug}", name=slug, tenant=stored.value.namespace if stored else "")
        is_credential = token.startswith(KEY_PREFIX) or (self._has_issuer and token)
        if stored is None or not is_credential:
            return None
        with contextlib.suppress(Problem):
            caller = await self._auth.caller_of(request, ErrorStyle.PROBLEM)
            may = caller.may(Scope.TASKS_WRITE) and not caller.app and caller.tenant in ("", stored.value.namespace)
            return caller if may else None
        return None

    def check_room(self, how: str) -> None:
        """Raise `Problem` 503 if too many wait already, in this way: `sse` or `sync`."""
        if self._open[how] >= self._most:
            what = "SSE connections" if how == "sse" else "sync requests"
            raise Problem(503, f"too many concurrent {what}", code="too_many_waiting", headers={"Retry-After": "5"})

    @contextlib.contextmanager
    def waiting(self, how: str) -> Iterator[None]:
        """Count one that waits."""
        self._open[how] += 1
        try:
            yield
        finally:
            self._open[how] -= 1
