"""The memory backend keeps every promise of the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from queue_backends import open_backend as open_registered
from queue_backends.conformance import BackendConformance, InjectRaw, OpenBackend, opener
from queue_backends.memory.queue import MemoryQueue


class TestMemoryConformance(BackendConformance):
    """The whole suite."""

    @pytest.fixture
    async def open_backend(self, stream: str) -> AsyncIterator[OpenBackend]:
        """A fresh queue of this process."""
        async with opener(f"memory://{stream}") as open_again:
            yield open_again

    @pytest.fixture
    def inject_raw(self, stream: str) -> InjectRaw:
        """What a foreign engine would write. The queue holds text only, so the case of broken UTF-8 cannot arise."""

        async def inject(fields: dict[str, bytes]) -> None:
            try:
                text = {name: value.decode() for name, value in fields.items()}
            except UnicodeDecodeError:
                pytest.skip("memory holds text only")
            async with await open_registered(f"memory://{stream}") as backend:
                assert isinstance(backend.queue, MemoryQueue)
                backend.queue.inject_raw(text)

        return inject
