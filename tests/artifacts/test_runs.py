"""Files that tools of a run make, from the tool to the task's result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from queue_backends import Backend, BackendOptions, ChunkType, Task, TaskResult, open_backend
from tests.dying import Dying
from worker.artifacts import ArtifactsFailed
from worker.artifacts.artifacts import open_artifacts
from worker.artifacts.room import PLACE
from worker.assembly import open_worker
from worker.client import Fleet, Handle
from worker.errors import BadSetting
from worker.settings import Settings, load_settings
from worker.settings.artifacts import ArtifactSettings

WITHIN_S = 20.0
TOOLS = str(Path(__file__).parent / "tools_of_tests.py")
TASK = Task(id="t1", prompt="go")
OPTIONS = BackendOptions(lease_s=0.2, max_deliveries=50)


def call(tool: str, /, **arguments: Any) -> dict[str, Any]:
    """A tool call of a script."""
    return {"name": tool, "arguments": arguments}


def settings_for(folder: Path, turns: Sequence[Sequence[dict[str, Any]]], **more: Any) -> Settings:
    """A worker with a store in `folder`, whose model makes those calls and says their results."""
    said = [*({"tool_calls": list(calls)} for calls in turns), {"text": "{results}"}]
    script = {"scenarios": [{"turns": said}]}
    overrides = {
        "agent.model": "scripted",
        "agent.provider": "scripted",
        "agent.options": {"script": script},
        "retry_base_s": 0.0,
        "python_tools": (TOOLS,),
        "artifacts.store_url": (folder / "store").as_uri(),
        "artifacts.dir": str(folder / "work"),
    }
    return load_settings({}, overrides=overrides | more)


@asynccontextmanager
async def fleet_of(settings: Settings) -> AsyncIterator[Fleet]:
    """A worker on a queue in memory."""
    async with await open_backend("memory://") as backend, open_worker(settings, backend):
        yield Fleet(backend)


async def result_of(settings: Settings, task: Task | None = None) -> TaskResult:
    """How a task ends."""
    async with asyncio.timeout(WITHIN_S), fleet_of(settings) as fleet:
        handle = await fleet.submit(task or Task(prompt="go"))
        return await handle.result()


def content(url: str) -> str:
    """Of a stored file."""
    return Path(unquote(urlsplit(url).path)).read_text()


async def test_files_of_tools_are_in_the_result(tmp_path: Path) -> None:
    """Proves that what tools save or merely write is stored under the task's place, and named in its result."""
    calls = [[call("save", name="a b.md", text="one")], [call("draw", name="plot.svg", text="two")]]
    result = await result_of(settings_for(tmp_path, calls))
    assert result.ok, result.error
    assert list(result.artifacts) == ["a b.md", "plot.svg"]
    assert [content(url) for url in result.artifacts.values()] == ["one", "two"]
    assert result.artifacts["plot.svg"] == (tmp_path / "store" / "tasks" / result.task_id / "plot.svg").as_uri()


async def test_folders_are_removed_with_their_task(tmp_path: Path) -> None:
    """Proves that nothing of a task stays on the worker's disk, whether it has ended well or not."""
    settings = settings_for(tmp_path, [[call("draw", name="x", text="y")]], max_retries=0)
    async with asyncio.timeout(WITHIN_S), fleet_of(settings) as fleet:
        result = await (await fleet.submit("go")).result()
        place = tmp_path / "work" / PLACE
        while list(place.glob("*/*")):  # a thread is at it
            await asyncio.to_thread(place.stat)
        assert result.artifacts
    assert list(place.iterdir()) == []


async def test_only_regular_files_right_in_the_folder_count(tmp_path: Path) -> None:
    """Proves that no link, pipe, hidden file or deeper folder is taken, so that nothing outside can be stored."""
    result = await result_of(settings_for(tmp_path, [[call("litter")]]))
    assert result.output == "done", result.error
    assert result.artifacts == {}


async def test_tasks_at_the_same_time_do_not_meet(tmp_path: Path) -> None:
    """Proves that each task has its own files, though all give them the same name."""
    settings = settings_for(tmp_path, [[call("draw", name="n", text="x")]])
    async with asyncio.timeout(WITHIN_S), fleet_of(settings) as fleet:
        handles = [await fleet.submit(Task(prompt=f"go {number}")) for number in range(8)]
        results = [await handle.result() for handle in handles]
    assert len({result.artifacts["n"] for result in results}) == 8
    assert len({result.output for result in results}) == 8


async def test_a_model_saves_a_text_and_reads_its_input(tmp_path: Path) -> None:
    """Proves that the two tools for models work, and say what is wrong with a name."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "terms.txt").write_text("be kind")
    calls = [
        [call("read_artifact", name="terms"), call("read_artifact", name="other")],
        [call("save_artifact", name="../x", content="no")],
        [call("save_artifact", name="report.md", content="ä")],
    ]
    inputs = {"terms": (tmp_path / "store" / "terms.txt").as_uri()}
    settings = settings_for(tmp_path, calls, **{"artifacts.tools": True, "artifacts.inputs": inputs})
    result = await result_of(settings)
    assert "be kind" in result.output
    assert "no file 'other' was given; there are: terms" in result.output
    assert "is no name for an artifact" in result.output
    assert list(result.artifacts) == ["report.md"]
    assert content(result.artifacts["report.md"]) == "ä"


async def test_the_tools_are_off_unless_wanted(tmp_path: Path) -> None:
    """Proves that no model is offered them by a store alone."""
    result = await result_of(settings_for(tmp_path, [[call("save_artifact", name="x", content="y")]]))
    assert 'tool "save_artifact" not found' in result.output


async def test_an_input_outside_the_store_is_not_read(tmp_path: Path) -> None:
    """Proves that an address cannot be used to read the worker's own files."""
    inputs = {"x": "file:///etc/hostname"}
    result = await result_of(settings_for(tmp_path, [], max_retries=0, **{"artifacts.inputs": inputs}))
    assert "is not in this worker's store" in result.error


async def test_limits_are_told_to_the_model(tmp_path: Path) -> None:
    """Proves that too large files, and too many, are an error of the call, and never in silence a smaller result."""
    limits = {"artifacts.max_file_bytes": 3, "artifacts.max_files": 1}
    calls = [[call("draw", name="a", text="1234")]]
    large = await result_of(settings_for(tmp_path, calls, max_retries=0, **limits))
    assert "artifact 'a' has more than 3 bytes" in large.error
    calls = [[call("draw", name="a", text="1")], [call("draw", name="b", text="2")]]
    many = await result_of(settings_for(tmp_path, calls, max_retries=0, **limits))
    assert "one more than the 1 files" in many.error


async def test_a_store_that_fails_is_an_error_of_the_call_and_the_attempt(tmp_path: Path) -> None:
    """Proves that a task does not succeed whose files are not stored."""
    (tmp_path / "store").write_text("no folder")
    settings = settings_for(tmp_path, [[call("draw", name="a", text="1")]], max_retries=0)
    async with asyncio.timeout(WITHIN_S), fleet_of(settings) as fleet:
        handle = await fleet.submit("go")
        said = [chunk async for chunk in handle.chunks()]
        result = await handle.result()
    assert "artifact store: cannot write" in result.error
    [outcome] = [chunk for chunk in said if chunk.type is ChunkType.TOOL_RESULT]
    assert "could not be stored" in outcome.content


async def test_a_lost_file_is_not_forgotten_by_the_next_attempt(tmp_path: Path) -> None:
    """Proves that a task does not succeed without a file whose call is not repeated, unless it is made again."""
    settings = ArtifactSettings(store_url=(tmp_path / "store").as_uri(), dir=str(tmp_path / "work"))
    async with (
        await open_backend("memory://") as backend,
        open_artifacts(settings, backend.state, keep_s=60.0, is_alone=False, for_ark=False) as artifacts,
    ):
        (tmp_path / "store").write_text("no folder")
        first = await artifacts.begin(TASK, None, is_first=True)
        assert first is not None
        first.write("a", "1")
        with pytest.raises(ArtifactsFailed, match="cannot write"):
            await first.finish("")
        artifacts.end(first)
        (tmp_path / "store").unlink()
        second = await artifacts.begin(TASK, None, is_first=False)
        assert second is not None
        with pytest.raises(ArtifactsFailed, match="an earlier attempt has made a, and could not store it"):
            await second.finish("")
        await second.save("a", "2")
        assert content((await second.finish(""))["a"]) == "2"


async def test_without_a_store_tools_find_none(tmp_path: Path) -> None:
    """Proves that nothing is made or looked for."""
    settings = settings_for(tmp_path, [[call("has_files")]], **{"artifacts.store_url": ""})
    result = await result_of(settings)
    assert (result.output, result.artifacts) == ("no", {})
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("number", range(1, 6))
async def test_files_survive_a_worker(tmp_path: Path, number: int) -> None:
    """Proves that a task which another worker goes on with, wherever the first one died, has the files of the calls
    that are not repeated."""
    calls = [[call("draw", name="a", text="1")], [call("draw", name="b", text="2")]]
    more = {"backend.max_deliveries": OPTIONS.max_deliveries}
    settings, name = settings_for(tmp_path, calls, **more), f"artifacts-{number}"
    async with asyncio.timeout(WITHIN_S), await open_backend(f"memory://{name}", OPTIONS) as backend:
        dying = Dying(await open_backend(f"memory://{name}", OPTIONS), number, "after")
        task_id = (await Fleet(backend).submit("go")).id
        finished = asyncio.create_task(Handle(backend, task_id).result())
        async with open_worker(settings, dying):
            dead = asyncio.create_task(dying.dead.wait())
            await asyncio.wait([finished, dead], return_when=asyncio.FIRST_COMPLETED)
            dead.cancel()
        async with open_worker(settings, await open_backend(f"memory://{name}", OPTIONS)):
            result = await finished
    assert result.ok, result.error
    assert list(result.artifacts) == ["a", "b"]


async def test_the_only_task_at_a_time_may_use_the_shared_folder(tmp_path: Path) -> None:
    """Proves ark's way: with one task at a time, new files right in AGENT_ARTIFACT_DIR are its own; older ones not."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "old.txt").write_text("of somebody else")
    calls = [[call("shared", path=str(work / "new.txt"), text="mine")]]
    alone = await result_of(settings_for(tmp_path, calls, concurrency=1))
    assert list(alone.artifacts) == ["new.txt"]
    (work / "new.txt").unlink()
    among_many = await result_of(settings_for(tmp_path, calls))
    assert among_many.artifacts == {}
    assert (work / "old.txt").exists()


async def test_an_operator_of_ark_finds_files_by_run_and_step(tmp_path: Path) -> None:
    """Proves ark's place for files where ark gives the tasks, and that nobody else chooses a place by `meta`."""
    task = Task(prompt="go", meta={"run_name": "run-1", "step_name": "draft"})
    calls = [[call("draw", name="x", text="y")]]
    result = await result_of(settings_for(tmp_path, calls), task)
    assert result.artifacts["x"].endswith(f"/store/tasks/{result.task_id}/x")
    settings = load_settings(
        {
            "AGENT_NAMESPACE": "default",
            "AGENT_MODEL": "scripted",
            "AGENT_PROVIDER": "scripted",
            "AGENT_SYSTEM_PROMPT": "s",
            "TASK_QUEUE_URL": "memory://",
            "AGENT_ARTIFACT_STORE_URL": (tmp_path / "store").as_uri(),
            "AGENT_ARTIFACT_DIR": str(tmp_path / "work"),
            "SHOAL_PYTHON_TOOLS": TOOLS,
        },
        overrides={"agent.options": {"script": {"scenarios": [{"turns": [{"tool_calls": calls[0]}, {"text": "ok"}]}]}}},
    )
    url = (await result_of(settings, task)).artifacts["x"]
    assert url.endswith("/store/run-1/draft/x")


async def test_a_backend_is_left_with_notes_that_expire(tmp_path: Path) -> None:
    """Proves that what is noted of a task's files stands under its own key, for whoever goes on."""
    settings = settings_for(tmp_path, [[call("draw", name="x", text="y")]])
    async with asyncio.timeout(WITHIN_S), await open_backend("memory://") as backend, open_worker(settings, backend):
        handle = await Fleet(backend).submit("go")
        await handle.result()
        assert await _note(backend, handle.id) is not None


async def _note(backend: Backend, task_id: str) -> bytes | None:
    return await backend.state.get(f"artifacts/{task_id}")


@pytest.mark.parametrize(
    ("wanted", "name"), [({}, "output.txt"), ({"artifacts.output_format": "markdown"}, "output.md")]
)
async def test_an_answer_is_kept_as_a_file(tmp_path: Path, wanted: dict[str, str], name: str) -> None:
    """Proves that the answer as it is becomes a file, beside those that tools have made, under kubeswarm's name."""
    calls = [[call("draw", name="plot.svg", text="x")]]
    settings = settings_for(tmp_path, calls, **{"artifacts.saves_output": True} | wanted)
    result = await result_of(settings)
    assert sorted(result.artifacts) == sorted([name, "plot.svg"])
    assert content(result.artifacts[name]) == result.output


def test_the_variables_of_an_operator_for_answers(tmp_path: Path) -> None:
    """Proves that kubeswarm's two variables are read, that others are refused, and that without a store one says so."""
    store = {"AGENT_ARTIFACT_STORE_URL": tmp_path.as_uri(), "AGENT_ARTIFACT_SAVE_OUTPUT": "true"}
    assert load_settings(store).artifacts.save_output == "text"
    assert load_settings({**store, "AGENT_ARTIFACT_SAVE_FORMAT": "yaml"}).artifacts.save_output == "yaml"
    with pytest.raises(BadSetting, match="AGENT_ARTIFACT_SAVE_FORMAT"):
        load_settings({**store, "AGENT_ARTIFACT_SAVE_FORMAT": "pdf"})
    with pytest.raises(BadSetting, match="AGENT_ARTIFACT_SAVE_OUTPUT is set, and there is no store"):
        load_settings({"AGENT_ARTIFACT_SAVE_OUTPUT": "true"})
