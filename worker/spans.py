"""Steps of a run as spans: one that does nothing, for when tracing is off, and one that is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from queue_backends import TokenUsage
from worker.log import mask_text

if TYPE_CHECKING:
    from opentelemetry.context import Context


class Span:
    """A step that is being traced. This one does nothing: tracing is off.

    Use it as a context manager, or call `end` yourself, once, in the asyncio task that opened it. An exception that
    leaves the block marks the span as failed; a cancellation marks it as cancelled.
    """

    __slots__ = ()

    def set(self, name: str, value: str | bool | int | float | None) -> None:
        """Add an attribute; None is left out."""

    def usage(self, usage: TokenUsage) -> None:
        """Add token counts under their `gen_ai.usage.*` names and ark's; unknown ones are left out."""

    def event(self, name: str, attributes: Mapping[str, str]) -> None:
        """Note that something happened in this step."""

    def contents(self, arguments: str, content: str) -> None:
        """What a tool was told, and answered: for the audit log alone. Traces hold neither."""

    def fail(self, error: BaseException | str, *, kind: str = "") -> None:
        """Mark the step as failed. `kind` is `error.type`; the exception's class name by default."""

    def end(self) -> None:
        """The step is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


OFF = Span()


class LiveSpan(Span):
    """A step that is recorded; it is the current one until `end`. `ark_prefix` begins ark's names for its tokens."""

    __slots__ = ("_ark_prefix", "_span", "_token")

    def __init__(self, span: Any, parent: Context | None, ark_prefix: str) -> None:
        from opentelemetry import context, trace

        self._span = span
        self._ark_prefix = ark_prefix
        self._token = context.attach(trace.set_span_in_context(span, parent))

    def set(self, name: str, value: str | bool | int | float | None) -> None:
        if value is not None:
            self._span.set_attribute(name, value)

    def usage(self, usage: TokenUsage) -> None:
        self.set("gen_ai.usage.input_tokens", usage.input_tokens)
        self.set("gen_ai.usage.output_tokens", usage.output_tokens)
        self.set("gen_ai.usage.cache_read.input_tokens", usage.cache_read_tokens)
        self.set("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens)
        self.set("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
        self.set(f"{self._ark_prefix}.input_tokens", usage.input_tokens)
        self.set(f"{self._ark_prefix}.output_tokens", usage.output_tokens)

    def event(self, name: str, attributes: Mapping[str, str]) -> None:
        self._span.add_event(name, {key: mask_text(value) for key, value in attributes.items()})

    def fail(self, error: BaseException | str, *, kind: str = "") -> None:
        from opentelemetry.trace import StatusCode

        text = mask_text(str(error))
        kind = kind or (type(error).__name__ if isinstance(error, BaseException) else "error")
        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR, text)
        if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
            # not `record_exception`: its stack trace may hold what the model was told, and is not masked
            self._span.add_event("exception", {"exception.type": kind, "exception.message": text})

    def end(self) -> None:
        from opentelemetry import context

        context.detach(self._token)
        self._span.end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.fail("cancelled", kind="cancelled")
        elif error is not None:
            self.fail(error)
        self.end()
