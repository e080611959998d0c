"""What docs/loop-policy.md shows is what works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from queue_backends import open_backend
from tests.loop_policy.harness import done
from worker.assembly import open_worker
from worker.loop_policy.model import Advisor, Compression, LoopMemory, SandboxPolicy
from worker.settings import load_settings

PAGE = (Path(__file__).parents[2] / "docs" / "loop-policy.md").read_text(encoding="utf-8")


async def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files, and its answer."""
    tools, settings, shown = re.findall(r"```(?:python|yaml|console)\n(.*?)```", PAGE, re.DOTALL)[:3]
    (tmp_path / "loop_tools.py").write_text(tools)
    file = tmp_path / "shoal.yaml"
    file.write_text(settings)
    command, _, expected = shown.partition("\n")
    prompt = command.partition('"')[2].rstrip('"')
    loaded = load_settings({}, file=file)
    async with await open_backend("memory://") as backend, open_worker(loaded, backend):
        result = await done(backend, prompt)
    assert result.output.splitlines() == expected.splitlines()


def test_every_field_is_on_the_page() -> None:
    """By the name that it is written with."""
    named = set(re.findall(r"\w+", PAGE))
    fields = [
        name
        for struct in (Compression, LoopMemory, SandboxPolicy, Advisor)
        for name in struct.__struct_encode_fields__
        if name != "ref"
    ]
    assert [name for name in fields if name not in named] == []
