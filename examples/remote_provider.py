"""A provider in a process of its own, `python examples/remote_provider.py`: it repeats what it hears."""

from __future__ import annotations

from collections.abc import AsyncIterator

import providers
from providers import ChatProvider, ConfigParam, Health, Message, StopReason, TextDelta, TurnEnd, TurnEvent, TurnRequest
from providers.live_config import Configurable
from queue_backends import TokenUsage


class Parrot(Configurable, ChatProvider):
    name = "parrot"
    version = "1.0.0"
    params = (
        ConfigParam(key="greeting", default="You said:", description="What it says first"),
        ConfigParam(key="mood", default="fine", description="`ill` makes its health check fail"),
    )

    async def stream_turn(self, request: TurnRequest) -> AsyncIterator[TurnEvent]:
        heard = request.messages[-1].text
        answer = f"{self.value('greeting')} {heard}"
        for word in answer.split():
            yield TextDelta(word + " ")
        usage = TokenUsage(input_tokens=len(heard.split()), output_tokens=len(answer.split()))
        yield TurnEnd(message=Message.assistant(answer + " "), stop_reason=StopReason.END_TURN, usage=usage)

    async def health_check(self, config: providers.AgentConfig) -> Health:
        return Health(healthy=self.value("mood") != "ill", message=f"feels {self.value('mood')}")


if __name__ == "__main__":
    providers.serve(Parrot())
