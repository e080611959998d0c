"""The backend that the settings name."""

from __future__ import annotations

from contextlib import AsyncExitStack

from queue_backends import Backend, open_backend
from queue_backends.composed import ComposedBackend
from worker.settings import Settings
from worker.swarm_plugin.backends import open_with_plugin, plugin_url


async def open_backends(settings: Settings) -> Backend:
    """The backend that the settings name; queue, chunks and state may be on different ones."""
    queue_url = settings.queue_url
    if plugin_url(settings):
        return await open_with_plugin(settings)
    async with AsyncExitStack() as opened:
        queue = await opened.enter_async_context(await open_backend(queue_url, settings.backend))
        others = []
        for url in (settings.stream_url, settings.state_url):
            if not url or same_server(url, queue_url):
                others.append(queue)
            else:
                others.append(await opened.enter_async_context(await open_backend(url, settings.backend)))
        opened.pop_all()
    stream, state = others
    return queue if stream is queue and state is queue else ComposedBackend(queue, stream, state)


def same_server(url: str, other: str) -> bool:
    """Whether two URLs name the same server and database. ark's operators give the stream's URL without a queue name,
    and keys of chunks follow the queue's name here."""
    return url.partition("?")[0].rstrip("/") == other.partition("?")[0].rstrip("/")
