"""Suite: what an agent's settings and the conversation's pictures become in a request."""

from __future__ import annotations

from providers.capabilities import Capability
from providers.conformance.support import Conformance, body_of, check, has_number, has_text, needs
from providers.messages import ImagePart, Message, Role, TextPart, ToolCall, ToolOutcome

PICTURE = ImagePart(
    media_type="image/png",
    data="iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
)
"""One pixel."""


class RequestConformance(Conformance):
    """The suite knows no vendor's form: it looks for values that nothing else in the request has."""

    async def test_model_and_conversation(self) -> None:
        """The model's name, and every message of the conversation in its order, are in the request."""
        talk = (Message.user("first-words"), Message.assistant("second-words"), Message.user("third-words"))
        request = await self.sent(*talk)
        model = self.config("http://127.0.0.1").model
        check(model in request.target or has_text(body_of(request), model), f"the request does not name {model}")
        places = [request.body.decode().find(message.text) for message in talk]
        check(-1 not in places, f"a message is missing: {request.body!r}")
        check(places == sorted(places), "the messages are out of order")

    @needs(Capability.SYSTEM_PROMPT)
    async def test_system_prompt(self) -> None:
        """The system prompt is in the request."""
        body = body_of(await self.sent(system_prompt="Speak like a pirate."))
        check(has_text(body, "Speak like a pirate."), f"no system prompt: {body}")

    @needs(Capability.MAX_TOKENS)
    async def test_max_tokens(self) -> None:
        """So is the limit of the answer's length."""
        body = body_of(await self.sent(max_tokens=4321))
        check(has_number(body, 4321), f"no limit of 4321: {body}")

    @needs(Capability.SAMPLING)
    async def test_sampling(self) -> None:
        """So are temperature and top_p, also where they are zero; what is not set is not sent."""
        body = body_of(await self.sent(temperature=0.375, top_p=0.625))
        check(has_number(body, 0.375), f"no temperature of 0.375: {body}")
        check(has_number(body, 0.625), f"no top_p of 0.625: {body}")
        plain, cold = body_of(await self.sent()), body_of(await self.sent(temperature=0.0))
        check(plain != cold, "a temperature of zero is not sent")

    @needs(Capability.STOP)
    async def test_stop_sequences(self) -> None:
        """So are the stop sequences."""
        body = body_of(await self.sent(stop=("HALT-HERE", "OR-HERE")))
        check(has_text(body, "HALT-HERE") and has_text(body, "OR-HERE"), f"no stop sequences: {body}")

    @needs(Capability.IMAGES)
    async def test_images(self) -> None:
        """A picture in the history is in the request, with its kind, beside the text that belongs to it."""
        parts = (TextPart(text="What is this?"), PICTURE)
        body = body_of(
            await self.sent(Message(role=Role.USER, parts=parts), Message.assistant("?"), Message.user("Hm"))
        )
        check(has_text(body, PICTURE.data), "the request does not have the picture")
        check(has_text(body, "png"), "the request does not say what kind of picture it is")
        check(has_text(body, "What is this?"), "the text beside the picture is lost")

    @needs(Capability.IMAGE_URLS)
    async def test_images_by_address(self) -> None:
        """A picture may be an address for the vendor to fetch."""
        where = "https://example.com/picture.png"
        body = body_of(await self.sent(Message(role=Role.USER, parts=(ImagePart(url=where),))))
        check(has_text(body, where), f"the request does not have the address: {body}")

    @needs(Capability.TOOL_IMAGES)
    async def test_images_from_tools(self) -> None:
        """A picture that a tool answered with reaches the model."""
        call = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Lisbon"}')
        outcome = ToolOutcome(call_id=call.id, name=call.name, content="a-chart", images=(PICTURE,))
        asked = Message(role=Role.ASSISTANT, parts=(call,))
        body = body_of(await self.sent(Message.user("Hi"), asked, Message(role=Role.USER, parts=(outcome,))))
        check(has_text(body, PICTURE.data), "the request does not have the picture")
        check(has_text(body, "a-chart"), "the text beside the picture is lost")
