"""Getting a model onto an Ollama server: its answers while it downloads one.

Source: https://docs.ollama.com/api/pull.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable

import msgspec
import structlog
from msgspec import Struct

from providers.calls import Call, Limits
from providers.decoding import UNREADABLE, unreadable
from providers.errors import InvalidRequest, ProviderError, StreamBroken, Unavailable
from providers.http_errors import excerpt, read_error_body
from providers.ndjson import NdjsonDecoder
from providers.ollama_request import PROVIDER
from providers.transport import Transport

_SILENCE_S = 600.0
"""The server says nothing while it checks the digest of what it downloaded: minutes, for a large model."""

_NO_SUCH_MODEL = re.compile(
    r"does not exist|not found|invalid model|unauthorized|requires a newer version", re.IGNORECASE
)

_log = structlog.get_logger(__name__)


class PullProgress(Struct, frozen=True, kw_only=True):
    """How far a download is."""

    status: str = ""
    """The server's own words, such as `pulling manifest` or `verifying sha256 digest`."""
    digest: str = ""
    """Which part of the model; empty for steps of another kind."""
    total: int | None = None
    """Bytes of this part."""
    completed: int | None = None
    """Bytes of it that are there."""


class _Line(PullProgress, frozen=True, kw_only=True):
    error: msgspec.Raw = msgspec.Raw(b"")


_line_decoder = msgspec.json.Decoder(_Line)

OnProgress = Callable[[PullProgress], None]


async def pull(
    transport: Transport, call: Call, model: str, limits: Limits, on_progress: OnProgress | None = None
) -> None:
    """Have the server download `model`; `call` is the request to `/api/pull`. Returns when the model can be used.

    Raises `InvalidRequest` if there is no such model, `Unavailable` if the download failed, or another `ProviderError`.
    """
    tell = on_progress or LoggedProgress(model)
    limits = msgspec.structs.replace(limits, idle_timeout_s=max(limits.idle_timeout_s, _SILENCE_S))
    status = ""
    async for line in _lines(transport, call, limits):
        if line.error:
            raise _failed(model, line.error)
        status = line.status
        tell(line)
    if status != "success":
        said = f"{PROVIDER}: the download of {model!r} ended in the middle, at {status!r}"
        raise StreamBroken(said, provider=PROVIDER)


class LoggedProgress:
    """Tells the log of a download: its steps, and each tenth of its large parts."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._told: tuple[str, int] = ("", -1)

    def __call__(self, progress: PullProgress) -> None:
        """Log this line of the server, unless it says what was said."""
        tenths = 10 * (progress.completed or 0) // progress.total if progress.total else 0
        if (progress.status, tenths) != self._told:
            self._told = (progress.status, tenths)
            percent = {"percent": tenths * 10} if progress.total else {}
            _log.info("pulling a model", provider=PROVIDER, model=self._model, status=progress.status, **percent)


async def _lines(transport: Transport, call: Call, limits: Limits) -> AsyncIterator[_Line]:
    async with transport.stream_events(call, limits, decoder=NdjsonDecoder) as batches:
        async for batch in batches:
            for data in batch:
                try:
                    yield _line_decoder.decode(data)
                except UNREADABLE as error:
                    raise unreadable(error, PROVIDER, "a line about a download") from error


def _failed(model: str, raw: msgspec.Raw) -> ProviderError:
    said = excerpt(read_error_body(b'{"error":%s}' % bytes(raw)).message)
    message = f"{PROVIDER}: the server cannot download {model!r}: {said}"
    if _NO_SUCH_MODEL.search(said):
        return InvalidRequest(message, provider=PROVIDER)
    return Unavailable(message, provider=PROVIDER)
