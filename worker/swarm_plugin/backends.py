"""The backend of a worker whose queue is a kubeswarm plugin."""

from __future__ import annotations

from contextlib import AsyncExitStack

from queue_backends import Backend, open_backend
from queue_backends.composed import ComposedBackend
from worker.settings import Settings

SCHEME = "grpc://"


def plugin_url(settings: Settings) -> str:
    """The URL of the queue plugin that the settings name; empty if they name none."""
    if settings.queue_plugin_addr:
        return SCHEME + settings.queue_plugin_addr.removeprefix(SCHEME)
    return settings.queue_url if settings.queue_url.startswith(SCHEME) else ""


async def open_with_plugin(settings: Settings) -> Backend:
    """The plugin's queue, with chunks and state where the settings have them: on their own URLs, else where
    `TASK_QUEUE_URL` is, else in memory. The plugin's deliveries are counted in the state."""
    from queue_backends.swarm_plugin import open_backend as open_plugin

    url = plugin_url(settings)
    elsewhere = "" if settings.queue_url.startswith(SCHEME) else settings.queue_url
    stream_url, state_url = settings.stream_url or elsewhere, settings.state_url or elsewhere
    if not stream_url and not state_url:
        return await open_plugin(url, settings.backend)
    async with AsyncExitStack() as opened:
        state = await opened.enter_async_context(await open_backend(state_url or "memory://", settings.backend))
        chunks = state
        if stream_url != state_url:
            chunks = await opened.enter_async_context(await open_backend(stream_url or "memory://", settings.backend))
        queue = await opened.enter_async_context(await open_plugin(url, settings.backend, state=state.state))
        opened.pop_all()
    return ComposedBackend(queue, chunks, state)
