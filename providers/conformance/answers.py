"""Suite: what becomes of a recorded answer."""

from __future__ import annotations

from providers.capabilities import Capability
from providers.conformance.support import Conformance, check, end_of, needs
from providers.messages import StopReason


class AnswerConformance(Conformance):
    """Text, however it is cut; why an answer ended; what it used."""

    async def test_text(self) -> None:
        """A recorded answer becomes deltas, and a turn end whose text is that of the deltas."""
        end = await self.replays("text")
        check(end.stop_reason is StopReason.END_TURN, f"the stop reason is {end.stop_reason}")

    async def test_unicode_cut_anywhere(self) -> None:
        """However the bytes are cut, also inside a character, the same turn comes out."""
        recording = self.recording("unicode")
        for size in (1, 2, 3, 7, 64):
            pieces = tuple(recording[start : start + size] for start in range(0, len(recording), size))
            await self.expect("unicode", await self.turn(self.streamed(pieces)))

    async def test_usage_is_present(self) -> None:
        """Input and output tokens are known after a whole answer."""
        usage = end_of(await self.turn(self.whole("text"))).usage
        check(usage.input_tokens is not None and usage.output_tokens is not None, f"usage is incomplete: {usage}")

    @needs(Capability.LENGTH_REASON)
    async def test_cut_at_max_tokens(self) -> None:
        """An answer that reached its limit says so (recording `max_tokens`)."""
        reason = (await self.replays("max_tokens")).stop_reason
        check(reason is StopReason.MAX_TOKENS, f"the stop reason is {reason}")

    @needs(Capability.STOP_REASON)
    async def test_stopped_at_a_sequence(self) -> None:
        """An answer that a stop sequence ended says so (recording `stop_sequence`)."""
        reason = (await self.replays("stop_sequence")).stop_reason
        check(reason is StopReason.STOP_SEQUENCE, f"the stop reason is {reason}")

    @needs(Capability.REFUSAL_REASON)
    async def test_refusal(self) -> None:
        """A model that declined says so (recording `refusal`)."""
        reason = (await self.replays("refusal")).stop_reason
        check(reason is StopReason.REFUSAL, f"the stop reason is {reason}")

    @needs(Capability.CACHE_READ_TOKENS)
    async def test_usage_of_cache_reads(self) -> None:
        """Input from the vendor's cache is counted, as a part of the input (recording `cached`)."""
        usage = (await self.replays("cached")).usage
        check(usage.cache_read_tokens, f"no cache reads: {usage}")
        check((usage.input_tokens or 0) >= (usage.cache_read_tokens or 0), f"the input leaves out the cache: {usage}")

    @needs(Capability.CACHE_WRITE_TOKENS)
    async def test_usage_of_cache_writes(self) -> None:
        """So is input that was written to it (recording `cached`)."""
        usage = (await self.replays("cached")).usage
        check(usage.cache_write_tokens, f"no cache writes: {usage}")
        check((usage.input_tokens or 0) >= (usage.cache_write_tokens or 0), f"the input leaves out the cache: {usage}")

    @needs(Capability.REASONING_TOKENS)
    async def test_usage_of_reasoning(self) -> None:
        """Reasoning is counted, as a part of the output (recording `thinking`)."""
        usage = (await self.replays("thinking")).usage
        check(usage.reasoning_tokens, f"no reasoning tokens: {usage}")
        check((usage.output_tokens or 0) >= (usage.reasoning_tokens or 0), f"the output leaves out reasoning: {usage}")
