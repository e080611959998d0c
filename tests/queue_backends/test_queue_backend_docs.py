"""The example backend of the manual works as it is printed there."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from queue_backends import BackendMisconfigured, open_backend, registry
from queue_backends.conformance import CommitConformance, OpenBackend, StateConformance, opener

_MANUAL = Path(__file__).parents[2] / "docs" / "queue-backends.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```", _MANUAL.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _block(beginning: str) -> str:
    (found,) = [block for block in _BLOCKS if block.startswith(beginning)]
    return str(found)


@pytest.fixture(scope="module")
def notes_backend() -> Iterator[ModuleType]:
    """The example as the module that the manual says it is."""
    module = ModuleType("notes_backend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(_block('"""notes://name'), str(_MANUAL), "exec"), module.__dict__)
        patch.setitem(registry._registered, "notes", module.open_notes)
        yield module


@pytest.mark.usefixtures("notes_backend")
class TestNotes(StateConformance, CommitConformance):
    """What the example adds to the backend that it borrows from."""

    @pytest.fixture
    async def open_backend(self, stream: str) -> AsyncIterator[OpenBackend]:
        """As the manual's own test has it."""
        async with opener(f"notes://{stream}?on=memory://{stream}") as open_again:
            yield open_again


@pytest.mark.usefixtures("notes_backend")
async def test_a_url_without_a_queue_is_refused() -> None:
    """The example says what is missing."""
    with pytest.raises(BackendMisconfigured, match="on="):
        await open_backend("notes://desk")


@pytest.mark.usefixtures("notes_backend")
def test_the_printed_test_is_a_suite() -> None:
    """The test module of the manual defines a class that pytest would run."""
    namespace: dict[str, object] = {"__name__": "test_notes_backend"}
    exec(compile(_block('"""notes:// keeps'), str(_MANUAL), "exec"), namespace)
    suite = namespace["TestNotes"]
    assert isinstance(suite, type)
    assert hasattr(suite, "open_backend")
    assert sum(name.startswith("test_") for name in dir(suite)) > 100
