"""Stores keep what they are given, find it again, and read nothing that is not theirs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.artifacts.object_server import KEY, SECRET, TOKEN, ObjectServer, object_server
from worker.artifacts import ArtifactsFailed, ArtifactStore
from worker.artifacts.files import look_at
from worker.artifacts.gs_store import GsPlace
from worker.artifacts.object_calls import ObjectCall, ObjectCalls
from worker.artifacts.opening import open_store
from worker.artifacts.s3_store import S3Place
from worker.artifacts.store import PART_BYTES
from worker.errors import BadSetting
from worker.settings import load_settings


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ObjectServer]:
    """An object store, with credentials for it in the environment, and no pause before a request is repeated."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("GOOGLE_ACCESS_TOKEN", TOKEN)
    monkeypatch.setattr("worker.artifacts.object_calls.FIRST_WAIT_S", 0.0)
    async with object_server() as running:
        yield running


@pytest.fixture(params=["file", "s3", "gs"])
async def store(request: pytest.FixtureRequest, server: ObjectServer, tmp_path: Path) -> AsyncIterator[ArtifactStore]:
    """One of each kind."""
    urls = {
        "file": (tmp_path / "a folder").as_uri(),
        "s3": f"s3://bucket/some/prefix?region=eu-central-1&endpoint={server.url}",
        "gs": f"gs://bucket/some/prefix?endpoint={server.url}",
    }
    opened = open_store(urls[request.param], timeout_s=10.0)
    yield opened
    await opened.aclose()


async def put(store: ArtifactStore, key: str, data: bytes) -> str:
    """Keep this content; its URL."""
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(data)
        return await store.put(key, look_at(Path(file.name), len(data)), "text/markdown")


async def content_of(store: ArtifactStore, url: str) -> bytes:
    """Of a stored file."""
    file = await store.open(url, 10**9)
    data = b"".join([part async for part in file.parts()])
    assert len(data) == file.size
    return data


@pytest.mark.parametrize("name", ["report.md", "Übersicht 100%+~a=b&c?.pdf"])
async def test_what_is_kept_is_found(store: ArtifactStore, name: str) -> None:
    """Proves that each store gives back what it got, under any name, and replaces it when it comes again."""
    for data in (b"first", b"\0\xff" * 70_000, b""):
        url = await put(store, f"run/step/{name}", data)
        assert store.owns(url)
        assert await content_of(store, url) == data


async def test_more_than_allowed_is_not_read(store: ArtifactStore) -> None:
    """Proves that a file of any size costs no more memory than was said."""
    url = await put(store, "run/step/large", b"x" * 1000)
    with pytest.raises(ArtifactsFailed, match="more than 999 bytes"):
        await store.open(url, 999)


async def test_what_is_not_there(store: ArtifactStore) -> None:
    """Proves that it is said, with the place."""
    url = await put(store, "run/step/a", b"x")
    with pytest.raises(ArtifactsFailed, match=r"run/step/gone"):
        await store.open(f"{url.removesuffix('a')}gone", 10)


async def test_only_its_own_place_is_the_stores(store: ArtifactStore) -> None:
    """Proves that neither another place nor a way out of its own is taken for its own."""
    url = await put(store, "run/step/a", b"x")
    base = url.removesuffix("run/step/a")
    for foreign in (f"{base}../x", f"{base}run/../../x", "/etc/passwd", "http://host/x", base, "", f"x{url}"):
        assert not store.owns(foreign), foreign


async def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Proves that the folder of a file store cannot be left by what lies in it."""
    (tmp_path / "secret").write_text("s")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "up").symlink_to(tmp_path)
    store = open_store((tmp_path / "store").as_uri(), timeout_s=1.0)
    for name in ("x", "up/secret"):
        with pytest.raises(ArtifactsFailed):
            await store.open((tmp_path / "store" / name).as_uri(), 10)


@pytest.mark.parametrize("kind", ["s3", "gs"])
async def test_passing_faults_are_waited_out(server: ObjectServer, kind: str) -> None:
    """Proves that a busy store costs a repetition, and that one which stays away is an error without its text."""
    store = open_store(f"{kind}://bucket?endpoint={server.url}", timeout_s=10.0)
    server.faults[:] = [503, 500]
    assert await put(store, "a", b"x") == f"{kind}://bucket/a"
    assert (server.asked, server.objects["bucket/a"]) == (3, (b"x", "text/markdown"))
    server.faults[:] = [503] * 10
    with pytest.raises(ArtifactsFailed, match="HTTP 503 SlowDown") as failed:
        await put(store, "a", b"x")
    assert "secret" not in str(failed.value)
    await store.aclose()


@pytest.mark.parametrize("arrived", [0, 300 * 1024, PART_BYTES])
async def test_cloud_storage_is_asked_how_far_it_has_got(server: ObjectServer, arrived: int) -> None:
    """Proves that an upload goes on after a fault from the byte that the store has, and sends no other again."""
    store = open_store(f"gs://bucket?endpoint={server.url}", timeout_s=10.0)
    data = os.urandom(2 * PART_BYTES + 5)
    server.swallowed[:] = [arrived, arrived // 2]
    await put(store, "large", data)
    assert server.objects["bucket/large"][0] == data
    assert server.sent_bytes == len(data) + (PART_BYTES - arrived) + (PART_BYTES - arrived // 2)
    await store.aclose()


async def test_an_upload_without_progress_is_given_up(server: ObjectServer) -> None:
    """Proves that a store which takes nothing is not tried for ever, and that its session is ended."""
    store = open_store(f"gs://bucket?endpoint={server.url}", timeout_s=10.0)
    server.swallowed[:] = [0] * 100
    with pytest.raises(ArtifactsFailed, match="no more than 0 bytes of it arrive"):
        await put(store, "large", bytes(PART_BYTES + 1))
    assert (len(server.swallowed), server.sessions) == (96, {})
    await store.aclose()


async def test_wrong_credentials_are_said_at_once(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proves that the signature is checked, that nothing is repeated in vain, and that no key is shown."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(f"s3://bucket?endpoint={server.url}", timeout_s=10.0)
    with pytest.raises(ArtifactsFailed, match="HTTP 403 SignatureDoesNotMatch: check the credentials") as failed:
        await put(store, "a", b"x")
    assert (server.asked, KEY in str(failed.value)) == (0, False)
    await store.aclose()


async def test_other_credentials_are_tried_once() -> None:
    """Proves that a token which has been withdrawn costs one repetition, and not more."""
    asked: list[str] = []

    class Refusing:
        async def request(self, method: str, url: str, **more: object) -> object:
            from providers.calls import Response

            asked.append(method)
            return Response(status=401, headers={}, body=b"")

    async def headers() -> dict[str, str]:
        return {}

    calls = ObjectCalls(Refusing(), timeout_s=1.0, sleep=_never)  # type: ignore[arg-type]  # all of it that is used
    refused = ObjectCall(method="GET", url="http://x", what="read x", headers=headers, refused=lambda: True)
    with pytest.raises(ArtifactsFailed, match="HTTP 401"):
        await calls.make(refused)
    assert len(asked) == 2


async def _never(seconds: float) -> None:
    raise AssertionError(f"waited {seconds} s")


def test_addresses_of_amazon_and_google() -> None:
    """Proves where a bucket is reached without an endpoint: by its own host, unless its name has dots."""
    place = S3Place(bucket="b", prefix="p", region="eu-west-1")
    assert place.address("s3://b/p/r/a b.md") == "https://b.s3.eu-west-1.amazonaws.com/p/r/a%20b.md"
    dotted = S3Place(bucket="a.b", region="cn-north-1")
    assert dotted.address("s3://a.b/x") == "https://s3.cn-north-1.amazonaws.com.cn/a.b/x"
    assert GsPlace(bucket="b").base == "gs://b/"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x", "use file://, s3:// or gs://"),
        ("s3:///x", "names no bucket"),
        ("s3://key:secret@b", "credentials come from the environment"),
        ("gs://b?region=x", "has region"),
        ("file://", "give a whole path"),
    ],
)
def test_settings_that_cannot_work(url: str, said: str) -> None:
    """Proves that a worker says so before it starts, and shows no secret."""
    with pytest.raises(BadSetting, match=said) as failed:
        load_settings({"AGENT_ARTIFACT_STORE_URL": url})
    assert "secret" not in str(failed.value)


def test_tools_without_a_store_are_refused() -> None:
    """Proves that nobody waits for files that cannot come."""
    with pytest.raises(BadSetting, match="set AGENT_ARTIFACT_STORE_URL"):
        load_settings({"SHOAL_ARTIFACT_TOOLS": "1"})
