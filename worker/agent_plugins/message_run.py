"""One message, from its task's run to the plugin and back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog

from providers import Message as ChatMessage
from providers import ProviderError, StopReason
from providers.messages import conversation
from providers.tool_loop import Run
from queue_backends import QueueError
from worker.agent_plugins.errors import AgentPluginError, PluginAnsweredError, PluginCrashed, PluginNotFound
from worker.agent_plugins.instances import Instance
from worker.agent_plugins.message import Message, MessageGiven
from worker.agent_plugins.message_services import MessageServices
from worker.agent_plugins.package import PluginPackage
from worker.agent_plugins.request import AgentRequest, AvailableDatasource, AvailableLlm, RequestContext
from worker.agent_plugins.stream import MessageStream
from worker.errors import WorkerError

HEED_WITHIN_S = 3.0
"""So long a plugin may clean up after it was told to end; then it goes on alone, and all its services are shut."""
AFTER_DONE_S = 10.0
"""So long it may go on after it has said that the answer is complete."""

__all__ = ["MessageGiven", "answer_message"]

log = structlog.get_logger(__name__)


async def answer_message(given: MessageGiven) -> Run:
    """Let the agent's plugin answer the task.

    Raises what the plugin raises, `PluginAnsweredError`, and whatever ends a run: `Postponed`, a `QueueError`, a
    cancellation.
    """
    agent = given.agent.agent
    host = given.around.agent_plugins
    assert agent is not None  # noqa: S101 - only a declared agent has a plugin
    if host is None:
        raise PluginNotFound(f"agent {agent.slug!r} is a plugin, and this process runs none")
    package = host.plugins.usable(agent.plugin)
    host.plugins.check_config(agent.plugin, agent.config)
    message = Message(given, package)
    stream = MessageStream(message)
    async with host.instance(package, agent, given.agent.app) as instance:
        request = request_of(given, package)
        if request.session_id:
            await instance.session(request.session)
        try:
            await _handle(instance, message, request, stream)
        finally:
            await message.end()
    output = await message.sections.finish()
    if stream.failure is not None:
        raise PluginAnsweredError(stream.failure)
    output = output if stream.text is None else stream.text
    return Run(
        output=output,
        usage=given.book.usage,
        turns=message.steps.count,
        messages=(*conversation(given.task.history, given.task.prompt), ChatMessage.assistant(output)),
        stop_reason=StopReason.END_TURN,
        structured=stream.structured,
    )


async def _handle(instance: Instance, message: Message, request: AgentRequest, stream: MessageStream) -> None:
    services = MessageServices(message, stream)
    task_id, plugin = request.context.task_id, message.package.id
    handler = asyncio.create_task(
        instance.runner.handle_message(request, stream, services), name=f"agent plugin {plugin} of {task_id}"
    )
    handler.add_done_callback(_seen)
    message.handled_by(handler)
    said_all = asyncio.create_task(stream.ended.wait(), name=f"end of the answer of {task_id}")
    try:
        await asyncio.wait([handler, said_all], return_when=asyncio.FIRST_COMPLETED)
        if not handler.done():
            await asyncio.wait([handler], timeout=AFTER_DONE_S)
    finally:
        said_all.cancel()
        await _end(handler, instance, message)
    if message.fatal is not None:
        raise message.fatal
    _check(handler, message, stream)


async def _end(handler: asyncio.Task[None], instance: Instance, message: Message) -> None:
    """The plugin's code is told to end, if it has not, and is left alone if it does not."""
    if not handler.done():
        handler.cancel()
        await asyncio.wait([handler], timeout=HEED_WITHIN_S)
    if not handler.done():
        instance.abandon(handler)
        log.error(
            "an agent plugin does not end though it was told to: what it still does is ignored",
            plugin=message.package.id,
            task=message.given.task.id,
        )


def _seen(handler: asyncio.Task[None]) -> None:
    """What a plugin raises after it was told to end is no news."""
    if not handler.cancelled():
        handler.exception()


def _check(handler: asyncio.Task[None], message: Message, stream: MessageStream) -> None:
    """Raise what makes the attempt fail."""
    error: BaseException | None = None
    if handler.done():
        error = asyncio.CancelledError() if handler.cancelled() else handler.exception()
    if stream.ended.is_set():
        if error is not None and not isinstance(error, asyncio.CancelledError):
            log.warning(
                "an agent plugin failed after it had answered",
                plugin=message.package.id,
                task=message.given.task.id,
                error=f"{type(error).__name__}: {error}",
            )
        return
    if isinstance(error, asyncio.CancelledError):
        raise AgentPluginError(f"agent plugin {message.package.id!r} has cancelled itself")
    if error is None:
        return
    error = _plain(error)
    if isinstance(error, ProviderError | QueueError | WorkerError) or not isinstance(error, Exception):
        raise error
    log.error("an agent plugin failed", plugin=message.package.id, task=message.given.task.id, exc_info=error)
    said = "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in _leaves(error))
    raise PluginCrashed(f"agent plugin {message.package.id!r} failed: {said}") from error


def _plain(error: BaseException) -> BaseException:
    """What has made a `TaskGroup` fail: its one error, or the first of ours if there are no others."""
    leaves = [*_leaves(error)]
    is_ours = all(isinstance(leaf, ProviderError | QueueError | WorkerError) for leaf in leaves)
    return leaves[0] if is_ours or len(leaves) == 1 else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for each in error.exceptions:
        yield from _leaves(each)


def request_of(given: MessageGiven, package: PluginPackage) -> AgentRequest:
    """What the plugin is told: of the agent's app alone, and no secret."""
    task, agent = given.task, given.agent
    config = {} if agent.agent is None else agent.agent.config
    return AgentRequest(
        message=task.prompt,
        history=conversation(task.history, ""),
        session_id=task.session_id,
        conversation_id=task.conversation_id,
        config=package.config_for(config),
        tools=tuple(given.tool_specs()),
        llms=tuple(
            AvailableLlm(
                slug=llm.slug,
                name=llm.name or llm.slug,
                provider=llm.provider,
                model=llm.model,
                allowed_models=llm.allowed_models,
                privacy_score=llm.privacy_score,
            )
            for llm in agent.llms
        ),
        datasources=tuple(
            AvailableDatasource(
                slug=source.slug,
                name=source.name or source.slug,
                description=source.description,
                store=source.store,
                privacy_score=source.privacy_score,
            )
            for source in agent.datasources
        ),
        context=RequestContext(
            task_id=task.id,
            agent=task.agent,
            tenant=task.tenant,
            user=task.meta.get("user", ""),
            app="" if agent.app is None else agent.app.slug,
            meta=dict(task.meta),
            attempt=task.attempt,
            redelivered=not given.delivery.first,
        ),
    )
