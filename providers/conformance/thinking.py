"""Suite: the model's reasoning."""

from __future__ import annotations

from providers.capabilities import Capability
from providers.conformance.support import Conformance, body_of, check, has_text, needs
from providers.messages import Message, Role, Thinking, ThinkingPart, ToolOutcome


class ThinkingConformance(Conformance):
    """Reasoning is streamed, and goes back to the vendor that it came from."""

    @needs(Capability.THINKING)
    async def test_thinking(self) -> None:
        """Reasoning comes as thinking deltas, apart from the text (recording `thinking`)."""
        end = await self.replays("thinking")
        check(any(isinstance(part, ThinkingPart) for part in end.message.parts), "the reasoning is lost")

    @needs(Capability.THINKING_SETTINGS)
    async def test_thinking_is_asked_for(self) -> None:
        """Both ways to set how much the model thinks change the request."""
        plain = body_of(await self.sent())
        for wish in (Thinking(effort="high"), Thinking(budget_tokens=4321)):
            check(body_of(await self.sent(thinking=wish)) != plain, f"{wish} changes nothing in the request")

    @needs(Capability.THINKING_CARRIED)
    async def test_thinking_is_carried_on(self) -> None:
        """What the vendor needs of its reasoning goes back unchanged with the next request, and only to this vendor."""
        name = "thinking_tool_call" if self._has("thinking_tool_call") else "thinking"
        end = await self.replays(name)
        thoughts = [part for part in end.message.parts if isinstance(part, ThinkingPart)]
        check(thoughts, f"recording {name} has no reasoning")
        calls = end.message.tool_calls
        outcomes = tuple(ToolOutcome(call_id=call.id, name=call.name, content="sunny") for call in calls)
        reply = Message(role=Role.USER, parts=outcomes) if outcomes else Message.user("And tomorrow?")
        foreign = ThinkingPart(text="foreign-thought", signature="Zm9yZWlnbg==", provider="another-vendor")
        stranger = Message(role=Role.ASSISTANT, parts=(foreign, *Message.assistant("Hello.").parts))
        body = body_of(await self.sent(Message.user("Hi"), stranger, Message.user("?"), end.message, reply))
        for part in thoughts:
            for value in [each for each in (part.signature, part.redacted) if each] or [part.text]:
                check(self.carries(body, value), f"the next request does not have {value[:80]!r}")
        check(not has_text(body, "Zm9yZWlnbg=="), "another vendor's reasoning is in the request")

    def carries(self, body: object, value: str) -> bool:
        """Whether a request has what a `ThinkingPart` keeps. Override it if the vendor's form is not the part's."""
        return has_text(body, value)

    def _has(self, name: str) -> bool:
        return (self.recordings / f"{name}.{self.suffix}").exists()
