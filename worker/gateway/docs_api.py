"""The API's own description: `/openapi.json`, and `/docs` for people."""

from __future__ import annotations

import html
from collections.abc import Sequence

from starlette.responses import HTMLResponse, Response

from queue_backends.messages import encode_json
from worker.gateway.openapi import openapi_document
from worker.gateway.operation import Call, Operation

_HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    '<title>Shoal API</title><link rel="stylesheet" href="/docs/style.css"></head><body><main><h1>Shoal API</h1>'
)
_INTRODUCTION = (
    "<p>Authenticate with <code>Authorization: Bearer &lt;key&gt;</code>. The whole of it, for tools: "
    '<a href="/openapi.json">openapi.json</a>.</p>'
)
_STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; line-height: 1.5 }
main { max-width: 70rem; margin: 0 auto; padding: 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid gray }
code { font-family: ui-monospace, monospace }
"""


async def document(call: Call) -> Response:
    """The OpenAPI document."""
    state = call.request.app.state
    if not hasattr(state, "openapi_json"):
        state.openapi_json = encode_json(openapi_document(state.operations))
    return Response(state.openapi_json, media_type="application/json")


async def page(call: Call) -> Response:
    """All operations in one page."""
    operations: Sequence[Operation] = [each for each in call.request.app.state.operations if not each.is_hidden]
    tables = (
        f"<h2>{html.escape(tag)}</h2>{_table([each for each in operations if each.tag == tag])}"
        for tag in dict.fromkeys(each.tag for each in operations)
    )
    return HTMLResponse("".join([_HEAD, _INTRODUCTION, *tables, "</main></body></html>"]))


async def style(call: Call) -> Response:
    """The page's looks."""
    return Response(_STYLE, media_type="text/css")


def _table(operations: Sequence[Operation]) -> str:
    rows = "".join(
        f"<tr><td><code>{each.method}</code></td><td><code>{html.escape(each.path)}</code></td>"
        f"<td>{html.escape(each.summary)}</td><td><code>{each.scope.value if each.scope else '-'}</code></td></tr>"
        for each in operations
    )
    head = "<tr><th>Method</th><th>Path</th><th>What it does</th><th>Scope</th></tr>"
    return f'<div class="scroll" tabindex="0"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


OPERATIONS = (
    Operation(
        method="GET",
        path="/openapi.json",
        handler=document,
        summary="This API's OpenAPI document",
        scope=None,
        tag="Description",
        result=dict,
    ),
    Operation(
        method="GET",
        path="/v1/openapi.json",
        handler=document,
        summary="This API's OpenAPI document",
        scope=None,
        tag="Description",
        is_hidden=True,
    ),
    Operation(
        method="GET",
        path="/docs",
        handler=page,
        summary="All operations, for people",
        scope=None,
        tag="Description",
        is_hidden=True,
    ),
    Operation(
        method="GET",
        path="/docs/style.css",
        handler=style,
        summary="The looks of that page",
        scope=None,
        tag="Description",
        is_hidden=True,
    ),
)
