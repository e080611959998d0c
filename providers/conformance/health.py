"""Suite: health checks."""

from __future__ import annotations

from providers.capabilities import Capability
from providers.conformance.support import Conformance, capable, check, needs
from providers.interfaces import HealthCheck
from providers.replay_server import Ending, Reply, json_error

_SHORT_S = 0.3


class HealthConformance(Conformance):
    """A real call, bounded, that never raises."""

    @needs(Capability.HEALTH_CHECK)
    async def test_healthy(self) -> None:
        """A server that answers is healthy, and was really asked (hook `healthy_body`)."""
        async with self.serving(json_error(200, self.healthy_body)) as (server, provider, config):
            health = await capable(provider, HealthCheck).health_check(config)
            check(health.healthy, f"not healthy: {health}")
            check(server.requests, "the server was not asked")

    @needs(Capability.HEALTH_CHECK)
    async def test_unhealthy(self) -> None:
        """A refusal is an answer, with the reason; so is a server that is not there."""
        for status in (401, 500):
            async with self.serving(self.error_reply(status)) as (server, provider, config):
                health = await capable(provider, HealthCheck).health_check(config)
                check(not health.healthy and "the reason" in health.message, f"status {status}: {health}")
                check(len(server.requests) == 1, "a health check is not repeated")
        async with self.serving(Reply()) as (_, provider, _):
            health = await capable(provider, HealthCheck).health_check(self.config("http://127.0.0.1:1"))
            check(not health.healthy and health.message, f"nothing listens there: {health}")

    @needs(Capability.HEALTH_CHECK)
    async def test_hanging_server(self) -> None:
        """A server that never answers is not healthy, within `ChatProvider.health_limit_s`."""
        async with self.serving(Reply(silent_head=True)) as (_, provider, config):
            check(provider.health_limit_s <= 5.0, f"a health check may take {provider.health_limit_s} s")
            provider.health_limit_s = _SHORT_S
            health = await capable(provider, HealthCheck).health_check(config)
            check(not health.healthy and health.message, f"it never answered: {health}")

    @needs(Capability.HEALTH_CHECK)
    async def test_answer_that_never_ends(self) -> None:
        """Nor is one whose answer begins and does not end."""
        endless = Reply(frames=(b'{"data": [',), content_type="application/json", ending=Ending.SILENCE)
        async with self.serving(endless) as (_, provider, config):
            provider.health_limit_s = _SHORT_S
            health = await capable(provider, HealthCheck).health_check(config)
            check(not health.healthy, f"its answer never ended: {health}")
