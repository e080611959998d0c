"""Webhook tools, in a process of their own: `python -m tests.faults.tool_server DIARY`.

`/pay` and `/look` do the same thing; which of them may be repeated is known to the worker's configuration alone. The
effect happens in the middle of the call and is noted at that moment, whether the caller is still there or not.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web

from tests.faults.diaries import Diary
from tests.faults.loopback import serve
from tests.faults.plans import done_text


def application(diary: Diary) -> web.Application:
    """The tools as an HTTP application."""

    async def call(request: web.Request) -> web.Response:
        arguments = await request.json()
        key, step, hold_s = arguments["key"], arguments["step"], arguments["hold_s"]
        await asyncio.sleep(hold_s / 2)
        diary.note(tool=request.match_info["tool"], key=key, step=step)
        await asyncio.sleep(hold_s / 2)
        return web.Response(text=done_text(key, step))

    app = web.Application()
    app.router.add_post("/{tool}", call)
    return app


def main() -> None:
    """Serve until killed."""
    asyncio.run(serve(application(Diary(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
