"""The keys that an issuer publishes (a JWKS), kept for a while, and read anew when a token names one that is not known.

A stranger can name unknown keys as often as he likes: the issuer is asked at most once in `MIN_REFETCH_S`, by one
request at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import jwt
import msgspec
import structlog
from msgspec import Struct

from providers import ProviderError
from providers.transport import Transport
from worker.settings.gateway import is_https_or_loopback

FRESH_S: Final = 3600.0
"""After that the keys are read again, so that one that was withdrawn is not taken for long."""
STALE_S: Final = 24 * 3600.0
"""So long they are used if the issuer cannot be reached."""
MIN_REFETCH_S: Final = 10.0

_MOST_BYTES: Final = 512 * 1024
_MOST_KEYS: Final = 100
_LIMIT_S: Final = 10.0
_LEAST_RSA_BITS: Final = 2048
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}

log = structlog.get_logger(__name__)


class IssuerUnavailable(Exception):
    """The issuer's keys cannot be had, and there are none from before."""


class IssuerKey(Struct, frozen=True, kw_only=True):
    """A public key."""

    id: str | None
    kind: str
    algorithm: str
    """Empty: any of its kind."""
    key: Any


class IssuerKeys:
    """One issuer's keys."""

    def __init__(
        self, issuer: str, http: Transport, *, jwks_url: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`jwks_url` empty: where the issuer's discovery document says."""
        self._issuer = issuer
        self._http = http
        self._jwks_url = jwks_url
        self._clock = clock
        self._keys: list[IssuerKey] = []
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._reading = asyncio.Lock()

    async def find(self, key_id: Any, algorithm: str) -> IssuerKey | None:
        """The key that a token was signed with; None: the issuer has none such. Raises `IssuerUnavailable`."""
        found = self._known(key_id, algorithm)
        age_s = self._age_s()
        if found is not None and (age_s < FRESH_S or (age_s <= STALE_S and self._reading.locked())):
            return found  # one request waits for an issuer that does not answer, and not all
        await self._read_again()
        if self._age_s() > STALE_S:
            raise IssuerUnavailable(f"the keys of {self._issuer} cannot be read: tokens cannot be checked now")
        return self._known(key_id, algorithm)

    def _age_s(self) -> float:
        return float("inf") if self._read_at is None else self._clock() - self._read_at

    def _known(self, key_id: Any, algorithm: str) -> IssuerKey | None:
        fitting = [key for key in self._keys if _fits(key, algorithm)]
        if key_id is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.id == key_id), None)

    async def _read_again(self) -> None:
        async with self._reading:  # whoever waited finds what the one before has read
            if self._tried_at is not None and self._clock() - self._tried_at < MIN_REFETCH_S:
                return
            try:
                self._keys = await self._read()
                self._read_at = self._clock()
            except (ProviderError, msgspec.MsgspecError, ValueError) as error:
                log.warning("the issuer's keys cannot be read", issuer=self._issuer, error=str(error))
            finally:
                self._tried_at = self._clock()  # now, or whoever waited would wait as long again

    async def _read(self) -> list[IssuerKey]:
        url = self._jwks_url or await self._discover()
        if not is_https_or_loopback(url):
            raise ValueError(f"its keys are at {url!r}, which is not https")
        found = await self._get(url)
        entries = found.get("keys")
        if not isinstance(entries, list):
            raise ValueError(f"{url} has no list of keys")  # noqa: TRY004 - what a server sent, not a caller's mistake
        return [key for entry in entries[:_MOST_KEYS] if (key := _key(entry)) is not None]

    async def _discover(self) -> str:
        document = await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise ValueError(f"its discovery document is of another issuer, {str(document.get('issuer'))[:200]!r}")
        url = document.get("jwks_uri")
        if not isinstance(url, str):
            raise ValueError("its discovery document names no jwks_uri")  # noqa: TRY004 - as above
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        answer = await self._http.request(
            "GET", url, headers={"accept": "application/json"}, timeout_s=_LIMIT_S, max_body_bytes=_MOST_BYTES
        )
        if answer.status != 200:
            raise ValueError(f"{url} answered with status {answer.status}")
        found: dict[str, Any] = msgspec.json.decode(answer.body, type=dict[str, Any])
        return found


def _key(entry: Any) -> IssuerKey | None:
    """A public key for signatures; None for everything else, such as a shared secret or a key of a new kind."""
    if not isinstance(entry, dict) or entry.get("kty") not in _KINDS.values() or entry.get("use", "sig") != "sig":
        return None
    public = {name: value for name, value in entry.items() if name not in _PRIVATE}
    try:
        made = jwt.PyJWK(public)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, NotImplementedError):  # the last one: `"alg": "none"`
        return None
    if entry["kty"] == "RSA" and made.key.key_size < _LEAST_RSA_BITS:
        return None
    # An elliptic curve allows one algorithm only; an RSA key that names none may be used with all of its kind.
    algorithm = made.algorithm_name if entry["kty"] != "RSA" else str(entry.get("alg", ""))
    return IssuerKey(id=made.key_id, kind=entry["kty"], algorithm=algorithm, key=made.key)


def _fits(key: IssuerKey, algorithm: str) -> bool:
    return key.kind == _KINDS.get(algorithm[:2]) and key.algorithm in ("", algorithm)
