"""A small object store: S3's API in path style, with signatures verified by botocore; and Google's JSON API."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

auth = pytest.importorskip("botocore.auth")
awsrequest = pytest.importorskip("botocore.awsrequest")
credentials = pytest.importorskip("botocore.credentials")

KEY, SECRET, TOKEN = "AKIATEST", "a-secret-of-tests", "ya29.test"


class ObjectServer:
    """Objects by key, and the faults that the next requests meet."""

    def __init__(self) -> None:
        self.url = ""
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.faults: list[int] = []
        """Statuses that the next requests get."""
        self.asked = 0
        self.sessions: dict[str, tuple[str, bytearray]] = {}
        """Resumable uploads: what is written, and what has come of it."""
        self.swallowed: list[int] = []
        """Of the next parts only so many bytes arrive, and the answer is 503."""
        self.sent_bytes = 0
        """Of all parts, repeated ones too."""

    async def s3(self, request: web.Request) -> web.Response:
        """PUT and GET of `/bucket/key`."""
        body, found = await request.read(), request.match_info
        if not _is_signed(request, body):
            return _s3_error(403, "SignatureDoesNotMatch")
        return self._answer(request, f"{found['bucket']}/{found['key']}", body)

    async def gs_put(self, request: web.Request) -> web.Response:
        """A media upload."""
        key = f"{request.match_info['bucket']}/{request.query['name']}"
        if request.query["uploadType"] == "resumable":
            session = f"session-{len(self.sessions)}"
            self.sessions[session] = (key, bytearray())
            return web.Response(headers={"location": f"{self.url}/sessions?upload_id={session}"})
        return self._of_google(request, key, await request.read())

    async def gs_session(self, request: web.Request) -> web.Response:
        """A part of a resumable upload, a question how far it has got, or its end."""
        session = request.query["upload_id"]
        if session not in self.sessions:
            return web.Response(status=410)
        if request.method == "DELETE":
            del self.sessions[session]
            return web.Response(status=499)
        (key, there), body = self.sessions[session], await request.read()
        which, _, total = request.headers["content-range"].removeprefix("bytes ").partition("/")
        self.sent_bytes += len(body)
        if which != "*":
            begin = int(which.partition("-")[0])
            assert begin <= len(there), "a part is left out"
            new = body[len(there) - begin :]  # what is there already is ignored
            if self.swallowed:
                there.extend(new[: self.swallowed.pop(0)])
                return web.Response(status=503)
            there.extend(new)
        if len(there) == int(total):
            self.objects[key] = (bytes(there), "")
            return web.Response()
        return web.Response(status=308, headers={"range": f"bytes=0-{len(there) - 1}"} if there else {})

    async def gs_get(self, request: web.Request) -> web.Response:
        """A media download."""
        return self._of_google(request, f"{request.match_info['bucket']}/{request.match_info['key']}", b"")

    def _of_google(self, request: web.Request, key: str, body: bytes) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": {"errors": [{"reason": "authError"}]}}, status=401)
        return self._answer(request, key, body)

    def _answer(self, request: web.Request, key: str, body: bytes) -> web.Response:
        self.asked += 1
        if self.faults:
            return _s3_error(self.faults.pop(0), "SlowDown")
        if request.method in ("PUT", "POST"):
            self.objects[key] = (body, request.headers.get("content-type", ""))
            return web.Response()
        if key not in self.objects:
            return _s3_error(404, "NoSuchKey")
        return web.Response(body=self.objects[key][0])


@asynccontextmanager
async def object_server() -> AsyncIterator[ObjectServer]:
    """The server, on a free port."""
    server, app = ObjectServer(), web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/upload/storage/v1/b/{bucket}/o", server.gs_put)
    app.router.add_route("*", "/sessions", server.gs_session)
    app.router.add_get("/storage/v1/b/{bucket}/o/{key:.+}", server.gs_get)
    app.router.add_route("*", "/{bucket}/{key:.+}", server.s3)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


def _is_signed(request: web.Request, body: bytes) -> bool:
    """Whether botocore makes the same signature of what has arrived."""
    given = request.headers.get("authorization", "")
    if request.headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest() or "SignedHeaders=" not in given:
        return False
    names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
    signer = auth.S3SigV4Auth(credentials.Credentials(KEY, SECRET), "s3", given.split("/")[2])
    url = f"http://{request.host}{request.raw_path}"
    again = awsrequest.AWSRequest(
        request.method, url, headers={name: request.headers[name] for name in names}, data=body
    )
    again.context["timestamp"] = request.headers["x-amz-date"]
    again.context["payload_signing_enabled"] = True
    text = signer.string_to_sign(again, signer.canonical_request(again))
    expected: str = signer.signature(text, again)
    return given.endswith(f"Signature={expected}")


def _s3_error(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>secret</Message></Error>")
