"""The provider in the documentation is short, runs, and passes the suite for third parties."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from typing import Any

from providers import registry
from providers.conformance import ProviderConformance
from providers.interfaces import ChatProvider
from providers.messages import AgentConfig

_PAGE = Path(__file__).parents[2] / "docs" / "providers.md"


def _example() -> tuple[str, types.ModuleType]:
    """The first Python block of the page, as text and run as a module."""
    code = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), flags=re.DOTALL)[0]
    module = types.ModuleType("acme_example")
    sys.modules[module.__name__] = module  # where msgspec looks up annotations
    exec(compile(code, str(_PAGE), "exec"), module.__dict__)
    return code, module


_code, _module = _example()
_AcmeProvider: Any = _module.__dict__["AcmeProvider"]


class TestExample(ProviderConformance):
    """The example, on recordings of the server that it is for."""

    recordings = Path(__file__).parent / "recordings" / "acme"
    unknown_frame = b'data: {"from_the_future": 1}\n\n'

    def provider(self) -> ChatProvider:
        """A new provider with its own connections."""
        provider: ChatProvider = _AcmeProvider()
        return provider

    def config(self, base_url: str) -> AgentConfig:
        """The example's paths begin at the host."""
        return AgentConfig(model="acme-1", base_url=base_url)


def test_example_is_short() -> None:
    """A provider is written in less than sixty lines."""
    assert len(_code.splitlines()) < 60


def test_example_is_registered() -> None:
    """Its name creates it."""
    assert isinstance(registry.create("acme"), _AcmeProvider)
    assert "acme" in registry.available()
