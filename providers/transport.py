"""The one place that speaks HTTP: pooled connections, time limits, retries before an answer began, typed errors.

httpx is the client and aiohttp carries it, which costs a fifth of httpx's own transport per streamed chunk.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import aiohttp
import httpx
import msgspec
from aiohttp.http import HttpProcessingError

from providers.answer_body import AnswerBody, IteratedBody
from providers.calls import Call, Limits, Response, shown
from providers.errors import (
    BadResponse,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    StreamBroken,
    Unavailable,
)
from providers.event_stream import EventDecoder, EventStream
from providers.http_errors import ErrorBody, error_for, excerpt, read_error_body, redact, secrets_of
from providers.retry import RetryPolicy, is_gated, retry_after_s
from providers.vendor_limits import VendorLimits
from providers.verbatim_client import BODY, SocketFactory, VerbatimClient

CONNECTION_ERRORS: Final = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    aiohttp.ClientError,
    HttpProcessingError,
    OSError,
)
"""All that the drivers raise for a connection or an answer that failed."""

_KEEP_ALIVE_S: Final = 20.0
_ERROR_BODY_BYTES: Final = 64 * 1024
_BODY_BYTES: Final = 64 * 1024 * 1024
_SHORT_CHARS: Final = 200

_T = TypeVar("_T")
_TlsKey = tuple[bool | str, tuple[str, str] | None]


class _AttemptError(Exception):
    """Why one attempt failed, and whether to repeat it. Never leaves this module."""

    def __init__(self, error: ProviderError, *, repeat: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.repeat = repeat


class Transport:
    """HTTP for one provider or tool. Clock, sleep and randomness can be replaced for tests.

    There is one client per event loop and TLS setting; it keeps connections per host, any number at once.
    """

    def __init__(
        self,
        *,
        retry: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
        open_socket: SocketFactory | None = None,
        uses_proxies: bool = True,
    ) -> None:
        """`open_socket` makes the socket of every direct connection, given the very address that will be connected to;
        it raises `OSError` for one that may not be. `uses_proxies`: those of the environment (`HTTPS_PROXY`), which
        connect to addresses that nobody has looked at.
        """
        self._retry = retry or RetryPolicy()
        self._open_socket = open_socket
        self._uses_proxies = uses_proxies
        self._sleep = sleep
        self._random = random
        self._clock = clock
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_TlsKey, httpx.AsyncClient]] = (
            WeakKeyDictionary()
        )
        self._building: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @contextlib.asynccontextmanager
    async def stream_events(
        self,
        call: Call,
        limits: Limits,
        *,
        reject: Callable[[bytes], ProviderError | None] = lambda _: None,
        decoder: Callable[[], EventDecoder] | None = None,
    ) -> AsyncIterator[EventStream]:
        """Send the request and give the answer's events once the first one is there; on exit, close the connection.

        Until then, failures that may pass are retried. `reject` may find that the first event is an error, which then
        counts as a failure of the request. `decoder` makes one for streams that are no server-sent events. Raises a
        `ProviderError`; see `EventStream` for those of the iteration.
        """
        stream = await self._with_retries(call, limits, lambda: self._open(call, limits, reject, decoder))
        try:
            yield stream
        finally:
            await stream.aclose()

    async def post_json(self, call: Call, limits: Limits) -> bytes:
        """Send the request, with retries; the body of a 2xx answer, which came within `first_event_timeout_s`.

        Raises a `ProviderError`.
        """
        return await self._with_retries(call, limits, lambda: self._exchange(call, limits))

    async def get_json(self, provider: str, url: str, headers: Mapping[str, str], limits: Limits) -> bytes:
        """As `post_json`, by GET."""
        return await self.post_json(Call(provider=provider, url=url, headers=headers, method="GET"), limits)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout_s: float = 30.0,
        connect_timeout_s: float = 10.0,
        verify: bool | str = True,
        cert: tuple[str, str] | None = None,
        max_body_bytes: int = _BODY_BYTES,
    ) -> Response:
        """One plain request: no retry, no redirect, any status. The whole exchange takes at most `timeout_s`.

        `verify` may be the path of a CA file; `cert` is (certificate file, key file). Raises `Unavailable`,
        `ProviderTimeout`, `BadResponse` if the body is larger than allowed, `InvalidRequest` if `url` is none.
        """
        call = Call(provider="http", url=url, headers=headers or {}, body=content, method=method)
        limits = Limits(connect_timeout_s=connect_timeout_s, first_event_timeout_s=timeout_s, max_retries=0)
        try:
            return await self._whole(call, limits, (verify, cert), max_body_bytes)
        except _AttemptError as failed:
            raise failed.error from failed.error.__cause__

    async def aclose(self) -> None:
        """Close the connections of the current event loop."""
        for client in self._clients.pop(asyncio.get_running_loop(), {}).values():
            await client.aclose()

    async def _with_retries(self, call: Call, limits: Limits, attempt: Callable[[], Awaitable[_T]]) -> _T:
        policy = msgspec.structs.replace(
            self._retry,
            max_retries=limits.max_retries,
            longest_wait_s=min(self._retry.longest_wait_s, limits.max_retry_wait_s),
        )
        retries_done = 0
        while True:
            try:
                return await attempt()
            except _AttemptError as failed:
                error = failed.error
                repeat = failed.repeat and not (isinstance(error, RateLimited) and is_gated.get())
                wait_s = policy.wait_s(retries_done, error.retry_after_s, self._random) if repeat else None
                if wait_s is None:
                    raise error from error.__cause__
            retries_done += 1
            await self._sleep(wait_s)

    async def _open(
        self,
        call: Call,
        limits: Limits,
        reject: Callable[[bytes], ProviderError | None],
        decoder: Callable[[], EventDecoder] | None,
    ) -> EventStream:
        async with _first_event_limit(call, limits):
            response = await self._send(call, limits, (True, None))
            try:
                await self._check(call, response)
                stream = await _event_stream(call, limits, response, decoder)
                stream.limits = VendorLimits.from_headers(_lower(response.headers), self._clock())
                _accept(reject(await _first(stream)))
            except BaseException:
                await response.aclose()
                raise
        return stream

    async def _exchange(self, call: Call, limits: Limits) -> bytes:
        answer = await self._whole(call, limits, (True, None), _BODY_BYTES)
        if answer.status >= 300:
            raise self._rejected(call, answer.status, answer.headers, answer.body)
        return answer.body

    async def _whole(self, call: Call, limits: Limits, tls: _TlsKey, max_body_bytes: int) -> Response:
        async with _first_event_limit(call, limits):
            response = await self._send(call, limits, tls)
            try:
                body = await _body(call, response, max_body_bytes)
            finally:
                await response.aclose()
        return Response(status=response.status_code, headers=_lower(response.headers), body=body)

    async def _send(self, call: Call, limits: Limits, tls: _TlsKey) -> httpx.Response:
        client = await self._client(tls)
        timeout = httpx.Timeout(None, connect=limits.connect_timeout_s)
        try:
            url, headers = _without_userinfo(call)
            request = client.build_request(
                call.method, url, headers=headers, content=call.body or None, timeout=timeout
            )
            return await client.send(request, stream=True)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, aiohttp.InvalidURL, UnicodeError) as error:
            said = f"{shown(call.url)!r} is no address that can be called: use http://... or https://..."
            raise _AttemptError(InvalidRequest(said, provider=call.provider), repeat=False) from error
        except CONNECTION_ERRORS as error:
            raise _AttemptError(_unreachable(call, limits, error), repeat=True) from error

    async def _check(self, call: Call, response: httpx.Response) -> None:
        if response.status_code < 300:
            return
        body = await _body(call, response, _ERROR_BODY_BYTES, cut=True)
        raise self._rejected(call, response.status_code, _lower(response.headers), body)

    def _rejected(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> _AttemptError:
        said = read_error_body(body)
        if not said.kind:  # AWS names the error in a header
            said = msgspec.structs.replace(said, kind=headers.get("x-amzn-errortype", "").partition(":")[0])
        if status in (404, 405) and not said.kind and "model" not in said.message.lower():
            advice = f"nothing like it is at {shown(call.url)}: check the base URL"
            shows = excerpt(said.message, secrets_of(call))[:_SHORT_CHARS]
            said = msgspec.structs.replace(said, message=f"{shows}: {advice}".removeprefix(": "))
        if 300 <= status < 400:
            where = shown(headers.get("location", "nowhere"))
            said = ErrorBody(message=f"redirected to {where}: set the base URL to where the API is")
        error = error_for(
            call.provider,
            status,
            said,
            retry_after_s=retry_after_s(headers, self._clock()),
            limits=VendorLimits.from_headers(headers, self._clock()),
            secrets=secrets_of(call),
        )
        # Vendors may overrule what the status suggests; their own clients obey this header too.
        wish = headers.get("x-should-retry")
        return _AttemptError(error, repeat=isinstance(error, Unavailable) if wish is None else wish == "true")

    async def _client(self, tls: _TlsKey) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        clients = self._clients.setdefault(loop, {})
        if tls not in clients:
            # One at a time: reading the CA files takes 15 ms of CPU, which a thousand first calls would each spend.
            async with self._building.setdefault(loop, asyncio.Lock()):
                if tls not in clients:
                    context = await asyncio.to_thread(_tls_context, *tls)
                    clients[tls] = _new_client(context, self._open_socket, uses_proxies=self._uses_proxies)
        return clients[tls]


def _without_userinfo(call: Call) -> tuple[httpx.URL, Mapping[str, str]]:
    """`user:password@` in an address becomes the header that it stands for: the carrier takes only one of the two."""
    url = httpx.URL(call.url)
    if not url.userinfo:
        return url, call.headers
    basic = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
    return url.copy_with(userinfo=b""), {"authorization": f"Basic {basic}", **call.headers}


def _new_client(context: ssl.SSLContext, open_socket: SocketFactory | None, *, uses_proxies: bool) -> httpx.AsyncClient:
    # To aiohttp, 0 connections means no limit: how many calls run at once is decided by the worker.
    limits = httpx.Limits(max_connections=0, keepalive_expiry=_KEEP_ALIVE_S)
    headers = {"user-agent": "shoal", "accept-encoding": "identity"}
    return VerbatimClient(
        open_socket=open_socket,
        verify=context,
        limits=limits,
        headers=headers,
        follow_redirects=False,
        trust_env=uses_proxies,
    )


def _tls_context(verify: bool | str, cert: tuple[str, str] | None) -> ssl.SSLContext:
    if isinstance(verify, str):
        context = ssl.create_default_context(cafile=verify)
    else:
        context = httpx.create_ssl_context(verify=verify)  # honours SSL_CERT_FILE and SSL_CERT_DIR
    if cert is not None:
        context.load_cert_chain(*cert)
    return context


@contextlib.asynccontextmanager
async def _first_event_limit(call: Call, limits: Limits) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limits.first_event_timeout_s):
            yield
    except TimeoutError as error:
        said = f"{call.provider}: no answer from {shown(call.url)} within {limits.first_event_timeout_s:g} s"
        raise _AttemptError(ProviderTimeout(said, provider=call.provider), repeat=False) from error


async def _event_stream(
    call: Call, limits: Limits, response: httpx.Response, decoder: Callable[[], EventDecoder] | None
) -> EventStream:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/html":
        page = read_error_body(await _body(call, response, _ERROR_BODY_BYTES, cut=True))
        shows = excerpt(page.message, secrets_of(call))
        said = f"{call.provider}: {shown(call.url)} answered with a web page instead of events: {shows}"
        raise _AttemptError(BadResponse(said, provider=call.provider, status=response.status_code), repeat=False)
    stream = EventStream(
        _body_of(response),
        response.aclose,
        provider=call.provider,
        idle_timeout_s=limits.idle_timeout_s,
        connection_errors=CONNECTION_ERRORS,
        decoder=decoder and decoder(),
    )
    if decoder is None and kind == "application/json":
        # Servers that know no streaming answer at once, and some report errors so.
        stream.replace_by(await _body(call, response, _BODY_BYTES))
    return stream


def _body_of(response: httpx.Response) -> AnswerBody:
    carried: AnswerBody | None = response.extensions.get(BODY)
    if carried is None or "content-encoding" in response.headers:
        return IteratedBody(response.aiter_bytes())
    return carried


def _accept(error: ProviderError | None) -> None:
    if error is not None:
        raise _AttemptError(error, repeat=isinstance(error, Unavailable))


async def _first(stream: EventStream) -> bytes:
    try:
        return await stream.peek()
    except StreamBroken as error:
        raise _AttemptError(error, repeat=True) from error.__cause__
    except BadResponse as error:
        raise _AttemptError(error, repeat=False) from error.__cause__


async def _body(call: Call, response: httpx.Response, max_bytes: int, *, cut: bool = False) -> bytes:
    parts: list[bytes] = []
    left = max_bytes
    try:
        async for part in response.aiter_bytes():
            parts.append(part[:left])
            left -= len(part)
            if left < 0:
                break
    except CONNECTION_ERRORS as error:
        if cut:
            return b"".join(parts)  # an error's text that broke off is still an error
        said = f"{call.provider}: the answer of {shown(call.url)} broke off ({type(error).__name__})"
        raise _AttemptError(Unavailable(said, provider=call.provider), repeat=True) from error
    if left < 0 and not cut:
        said = f"{call.provider}: the answer of {shown(call.url)} has more than {max_bytes} bytes"
        raise _AttemptError(BadResponse(said, provider=call.provider), repeat=False)
    return b"".join(parts)


def _unreachable(call: Call, limits: Limits, error: Exception) -> ProviderError:
    where = f"{call.provider}: cannot reach {shown(call.url)}"
    # The carrier reports a lost connection as a connect timeout; only its own error tells the two apart.
    if isinstance(error.__cause__, TimeoutError):
        return ProviderTimeout(f"{where} within {limits.connect_timeout_s:g} s", provider=call.provider)
    reason = str(error).replace(" ssl:default", "")  # what aiohttp calls it that an address is not verified specially
    said = redact(reason, secrets_of(call)) or type(error).__name__
    return Unavailable(f"{where}: {said}", provider=call.provider)


def _lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
