"""Where a request carries its key or token: the forms that the clients of four APIs send."""

from __future__ import annotations

from starlette.requests import Request

from worker.gateway.problem import ErrorStyle


def credential_of(request: Request, style: ErrorStyle) -> str:
    """What a request authenticates itself with; empty: nothing.

    `Authorization: Bearer <key>` and `x-api-key: <key>` everywhere. On AI Studio's paths also `?token=<key>`, which
    browsers need for event streams, and any word instead of `Bearer`, as Studio has it. Nowhere else is a key taken
    from a URL: those end up in logs and histories.
    """
    if style is ErrorStyle.STUDIO and (token := request.query_params.get("token", "")):
        return token
    scheme, _, given = request.headers.get("authorization", "").strip().partition(" ")
    if given and (style is ErrorStyle.STUDIO or scheme.lower() == "bearer"):
        return given.strip()
    return request.headers.get("x-api-key", "").strip()
