"""The folders of processes that live, and of those that have crashed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from worker.artifacts.room import PLACE, open_room
from worker.errors import BadSetting

CRASHING = """
import asyncio, os, sys
from pathlib import Path
from worker.artifacts.room import open_room

async def main():
    async with open_room(Path(sys.argv[1])) as room:
        folder = room.folder_of("task")
        folder.mkdir()
        (folder / "file").write_text("x")
        os._exit(1)

asyncio.run(main())
"""


async def test_what_a_crashed_process_leaves_is_swept(tmp_path: Path) -> None:
    """Proves that the next process removes it, and leaves alone what belongs to one that lives."""
    async with open_room(tmp_path) as living:
        living.folder_of("mine").mkdir()
        command = [sys.executable, "-c", CRASHING, str(tmp_path)]
        ended = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True)
        assert ended.returncode == 1, ended.stderr
        assert len(list((tmp_path / PLACE).glob("*/task/file"))) == 1
        async with open_room(tmp_path):
            assert list((tmp_path / PLACE).glob("*/task")) == []
            assert living.folder_of("mine").is_dir()


async def test_a_folder_that_cannot_be_written_is_a_setting(tmp_path: Path) -> None:
    """Proves that the worker says so when it starts, with the name of the setting."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadSetting, match="AGENT_ARTIFACT_DIR"):
        async with open_room(tmp_path / "file"):
            pass
