"""What every queue backend must do, as a suite that a third party can run on its own backend.

    class TestMyBackend(BackendConformance):
        @pytest_asyncio.fixture
        async def open_backend(self, tmp_path: Path) -> AsyncIterator[OpenBackend]:
            async with opener(f"mine://{tmp_path}") as open_again:
                yield open_again

Run it with pytest and pytest-asyncio. `open_backend` opens one storage, fresh for each test, as often as a test asks:
every call stands for another process. The fixture `inject_raw` is optional; see `UnreadableConformance.inject_raw`.
"""

import pytest

_MODULES = (
    "support",
    "delivery",
    "leases",
    "endings",
    "cancelling",
    "operators",
    "waking",
    "queue",
    "chunks",
    "chunk_bounds",
    "state",
    "commit",
)
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

# pytest explains only those asserts that it was told of before their module is imported: hence the order below.
from queue_backends.conformance.chunk_bounds import ChunkBoundsConformance  # noqa: E402 - see above
from queue_backends.conformance.chunks import ChunkConformance  # noqa: E402 - see above
from queue_backends.conformance.commit import CommitConformance  # noqa: E402 - see above
from queue_backends.conformance.queue import QueueConformance  # noqa: E402 - see above
from queue_backends.conformance.state import StateConformance  # noqa: E402 - see above
from queue_backends.conformance.support import InjectRaw, OpenBackend, opener  # noqa: E402 - see above

__all__ = [
    "BackendConformance",
    "ChunkBoundsConformance",
    "ChunkConformance",
    "CommitConformance",
    "InjectRaw",
    "OpenBackend",
    "QueueConformance",
    "StateConformance",
    "opener",
]


class BackendConformance(
    QueueConformance, ChunkConformance, ChunkBoundsConformance, StateConformance, CommitConformance
):
    """Everything that a backend promises."""
