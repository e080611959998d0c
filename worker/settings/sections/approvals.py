"""How people are asked whether a tool may be called."""

from __future__ import annotations

from worker.settings.setting import Setting, seconds

APPROVAL_FALLBACKS = ("reject", "approve")

APPROVALS: tuple[Setting, ...] = (
    seconds(
        "approval.timeout_s",
        "SHOAL_APPROVAL_TIMEOUT_SECONDS",
        "So long people are waited for; then the fallback decides",
        1,
        6 * 24 * 3600,
    ),
    Setting(
        key="approval.fallback",
        type=str,
        variable="SHOAL_APPROVAL_FALLBACK",
        choices=APPROVAL_FALLBACKS,
        meaning="What counts if nobody answers in time",
    ),
    Setting(
        key="approval.webhook",
        type=str,
        variable="SHOAL_APPROVAL_WEBHOOK",
        secret=True,
        meaning="URL that is told of each question; empty: none",
    ),
    Setting(
        key="approval.webhook_secret",
        type=str,
        variable="SHOAL_APPROVAL_WEBHOOK_SECRET",
        secret=True,
        meaning="Signs what is sent there (Standard Webhooks): `whsec_` and base64 of 24 to 64 bytes",
    ),
)
