"""Serves the pages: `/`, `/dashboard`, `/chat`, and what they load from `/pages/`.

Pages are open to everybody: they hold nothing of the fleet, which they ask the API for, with the key that the browser
was given. Their policy lets them load scripts and styles from here alone, and none that stand in the page itself.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from worker.gateway.operation import Call, Handler, Operation
from worker.gateway.pages.page_files import page_files
from worker.gateway.problem import Problem

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_CHECKED_EACH_TIME: Final = "no-cache"
"""Kept by the browser and asked for again with its tag: a new version of the gateway shows at once."""


def page(name: str) -> Handler:
    """A handler that serves one file."""

    async def handler(call: Call) -> Response:
        return _file(call, name)

    return handler


async def _asset(call: Call) -> Response:
    return _file(call, call.path["name"])


def _file(call: Call, name: str) -> Response:
    found = page_files().get(name)
    if found is None:
        raise Problem(404, f"there is no page file {name[:200]!r}", code="not_found")
    headers = {"ETag": found.tag, "Cache-Control": _CHECKED_EACH_TIME, "Content-Security-Policy": POLICY}
    if found.tag in (tag.strip() for tag in call.request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)


def page_operation(path: str, handler: Handler, summary: str) -> Operation:
    """How a page is declared: open, and not part of the API's document."""
    return Operation(method="GET", path=path, handler=handler, summary=summary, scope=None, tag="Pages", is_hidden=True)


OPERATIONS: tuple[Operation, ...] = (
    page_operation("/", page("start.html"), "The start page"),
    page_operation("/chat", page("chat.html"), "The chat page"),
    page_operation("/dashboard", page("dashboard.html"), "The ops dashboard"),
    page_operation("/pages/{name:path}", _asset, "What pages load"),
)
