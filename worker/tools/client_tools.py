"""Tools that a task brings along: the model is told of them, and its client runs them."""

from __future__ import annotations

from collections.abc import Sequence

from providers import AgentConfig, ChatProvider, LLMProvider, ToolSpec
from queue_backends import InvalidTask


def with_client_tools(
    config: AgentConfig, own: Sequence[ToolSpec], provider: LLMProvider | None
) -> tuple[ToolSpec, ...]:
    """What the model is told of: the agent's own tools, then the client's.

    Raises `InvalidTask` if a name is taken, or if the provider runs whole tasks, so that nobody here sees its calls.
    """
    if not (provider is None or isinstance(provider, ChatProvider)):
        raise InvalidTask(
            f"provider {provider.name!r} runs whole tasks and hands no tool calls over: leave client_tools out, or use "
            "an agent with another provider"
        )
    names = [tool.name for tool in config.client_tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidTask(f"client_tools has {', '.join(map(repr, twice))} more than once: names must differ")
    if taken := sorted({spec.name for spec in own}.intersection(names)):
        raise InvalidTask(
            f"client_tools has {', '.join(map(repr, taken))}, and the agent has a tool of that name: rename it"
        )
    return (*own, *(tool.spec for tool in config.client_tools))
