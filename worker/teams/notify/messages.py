"""What is sent to a channel: a webhook's body, a Slack message with blocks.

Source: https://docs.slack.dev/messaging/formatting-message-text (three characters are escaped) and
https://docs.slack.dev/reference/block-kit/blocks/section-block (at most 3000 characters).
"""

from __future__ import annotations

from queue_backends.messages import encode_json
from worker.teams.notify.model import Channel, NotifyEvent
from worker.teams.notify.payload import NotifyPayload, template_data
from worker.teams.templates import parsed

MOST_SECTION_CHARS = 3000
_SIGNS = {
    NotifyEvent.TEAM_SUCCEEDED: ":white_check_mark:",
    NotifyEvent.TEAM_FAILED: ":x:",
    NotifyEvent.TEAM_TIMED_OUT: ":hourglass:",
    NotifyEvent.TEAM_CANCELLED: ":no_entry_sign:",
    NotifyEvent.BUDGET_WARNING: ":warning:",
    NotifyEvent.BUDGET_EXCEEDED: ":money_with_wings:",
    NotifyEvent.DAILY_LIMIT_REACHED: ":money_with_wings:",
    NotifyEvent.AGENT_DEGRADED: ":warning:",
}


def body_for(channel: Channel, payload: NotifyPayload) -> bytes:
    """The body of the request. Raises `TemplateError`."""
    text = parsed(channel.template, "template").render(template_data(payload)) if channel.template else ""
    if channel.type == "slack":
        return _slack(text, payload) if text else _usual_slack(payload)
    return text.encode() if channel.template else encode_json(payload)


def _usual_slack(payload: NotifyPayload) -> bytes:
    title = f"{_SIGNS[payload.event]} *{escaped(payload.message)}*"
    facts = [
        ("Run", f"`{escaped(payload.run_name)}`" if payload.run_name else ""),
        ("Failed step", f"`{escaped(payload.failed_step)}`" if payload.failed_step else ""),
        ("Duration", _duration(payload.duration_ms)),
        ("Tokens", f"{payload.total_tokens:,}" if payload.total_tokens else ""),
        ("Cost", f"${payload.cost_usd:.4f}" if payload.cost_usd else ""),
        ("Tenant", escaped(payload.namespace)),
    ]
    fields = [{"type": "mrkdwn", "text": f"*{name}*\n{value}"} for name, value in facts if value]
    blocks: list[dict[str, object]] = [_section(title)]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if said := escaped(payload.reason or payload.output):
        blocks.append(_section(said))
    if payload.dashboard_url:
        blocks.append(_section(f"<{escaped(payload.dashboard_url)}|Open in the dashboard>"))
    return encode_json({"text": f"{_SIGNS[payload.event]} {escaped(payload.message)}", "blocks": blocks})


def _slack(text: str, payload: NotifyPayload) -> bytes:
    return encode_json({"text": text[:MOST_SECTION_CHARS] or payload.message, "blocks": [_section(text)]})


def _section(text: str) -> dict[str, object]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:MOST_SECTION_CHARS]}}


def escaped(text: str) -> str:
    """A text in which Slack sees no mention, link or tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _duration(milliseconds: int) -> str:
    if not milliseconds:
        return ""
    seconds = milliseconds / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"
