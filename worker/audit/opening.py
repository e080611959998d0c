"""Puts a worker's audit log together, if its settings want one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from providers import AgentConfig
from providers.transport import Transport
from queue_backends import Task
from worker.agents.roster import DEFAULT_NAME
from worker.audit.acts import AuditedTelemetry, Writer
from worker.audit.model import AuditLog
from worker.audit.record import Env
from worker.audit.redaction import Redaction
from worker.audit.sinks import RedisSink, Sink, StdoutSink, WebhookSink
from worker.audit.trail import AuditTrail
from worker.errors import BadSetting
from worker.settings import Settings
from worker.telemetry import Telemetry
from worker.version import version

_REDIS = ("redis", "rediss", "unix")


@asynccontextmanager
async def audited(
    telemetry: Telemetry,
    settings: Settings,
    config_of: Callable[[Task], AgentConfig],
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator[Telemetry]:
    """The telemetry, which also writes acts down if that is wanted. Raises `BadSetting` for a sink without address."""
    audit = settings.audit_log
    if audit is None or not audit.is_on:
        yield telemetry
        return
    trail = AuditTrail(_sink(audit, settings, environ), exclude=audit.exclude_actions)
    writer = Writer(
        trail=trail,
        redaction=Redaction(audit.redact, audit.max_detail_bytes),
        namespace=settings.namespace,
        agent=settings.agent_name or DEFAULT_NAME,
        env=Env(service="shoal-worker", version=version(), pod_name=environ.get("POD_NAME", "")),
        config_of=config_of,
        tells_prompts=audit.mode == "verbose",
    )
    async with trail.kept():
        yield AuditedTelemetry(telemetry, writer)


def _sink(audit: AuditLog, settings: Settings, environ: Mapping[str, str]) -> Sink:
    if audit.sink == "redis":
        url = audit.redis_url or settings.queue_url.partition("?")[0]
        if url.partition("://")[0] not in _REDIS:
            raise BadSetting("AGENT_AUDIT_LOG: sink 'redis' needs redisURL, since the queue is on another engine")
        try:
            return RedisSink(url)
        except ValueError:
            where = "redisURL" if audit.redis_url else "the queue's address"
            # Without its cause, which may quote the password.
            raise BadSetting(f"AGENT_AUDIT_LOG: {where} is no Redis URL: use redis://host:6379/0") from None
    if audit.sink == "webhook":
        url = environ.get(audit.webhook_url_env, "").strip() if audit.webhook_url_env else ""
        if not url:
            raise BadSetting(
                "AGENT_AUDIT_LOG: sink 'webhook' needs webhookURLEnv, an environment variable with the address"
                + (f"; {audit.webhook_url_env} is not set" if audit.webhook_url_env else "")
            )
        return WebhookSink(url, Transport())
    return StdoutSink()
