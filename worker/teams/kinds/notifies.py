"""ArkNotify and SwarmNotify -> `Notify`."""

from __future__ import annotations

from worker.objects.errors import BadObject
from worker.teams.kinds.documents import Document, Documents
from worker.teams.kinds.objects import Fields
from worker.teams.notify.checks import check_notify
from worker.teams.notify.model import DEFAULT_RATE_LIMIT_S, Channel, Header, Notify, NotifyEvent


def compile_notify(document: Document, documents: Documents) -> Notify:
    """The notification policy of a document. Addresses from Secrets become names of environment variables."""
    spec, findings = document.spec, documents.findings
    channels = [*spec.many("channels"), *([spec.one("channel")] if "channel" in spec else [])]
    if not channels:
        findings.error(spec.node, "a notification policy needs 'channels': at least one")
    names = [*spec.texts("on"), *(event.text("type") for event in spec.many("events"))]
    limit = spec.get("rateLimitSeconds", spec.one("rateLimiting").get("windowSeconds", DEFAULT_RATE_LIMIT_S))
    policy = Notify(
        slug=document.name,
        description=spec.text("description"),
        on=tuple(NotifyEvent(name) for name in names),
        channels=tuple(_channel(found, documents) for found in channels),
        rate_limit_s=int(limit),
        is_for_all=bool(spec.get("forAll")),
    )
    if not findings.has_errors:
        try:
            check_notify(policy)
        except BadObject as error:
            findings.error(spec.node, str(error))
    return policy


def _channel(found: Fields, documents: Documents) -> Channel:
    kind = found.get("type", "webhook")
    if kind not in found and "type" in found:
        documents.findings.error(found.node, f"type {kind} needs {kind!r}: where it goes")
    if kind == "slack":
        slack = found.one("slack")
        variable = slack.text("webhookUrlEnv")
        for name in ("webhookURLFrom", "webhookUrlSecretRef"):
            if name in slack:
                variable = documents.sources.secret(slack.one(name), documents.findings)
        if "slack" in found and not variable:
            documents.findings.error(slack.node, "a Slack webhook needs 'webhookURLFrom' or 'webhookUrlEnv'")
        return Channel(type="slack", url_env=variable, template=found.text("template"))
    webhook = found.one("webhook")
    variable = webhook.text("urlEnv")
    if "urlFrom" in webhook:
        variable = documents.sources.secret(webhook.one("urlFrom"), documents.findings)
    if "webhook" in found and not variable and "url" not in webhook:
        documents.findings.error(webhook.node, "a webhook needs 'url', 'urlFrom' or 'urlEnv'")
    return Channel(
        type="webhook",
        url="" if variable else webhook.text("url"),
        url_env=variable,
        method=webhook.get("method", "POST"),
        headers=tuple(_header(header, documents) for header in webhook.many("headers")),
        template=found.text("template"),
    )


def _header(found: Fields, documents: Documents) -> Header:
    variable = found.text("valueEnv")
    if "valueFrom" in found:
        variable = documents.sources.secret(found.one("valueFrom"), documents.findings)
    return Header(name=found.text("name"), value=found.text("value"), value_env=variable)
