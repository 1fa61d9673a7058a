"""Caches the JSON Web Key Set of an issuer (RFC 7517); fetches it for unknown key IDs, keeps it if a fetch fails."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

#: The minimum number of seconds between fetches, so that tokens with random key IDs cannot flood the issuer.
PAUSE = 30.0
#: The age in seconds at which keys are refreshed in the background, so that a withdrawn key is dropped.
MAX_AGE = 3600.0
#: The timeout of a fetch in seconds, and the most bytes of its response.
TIMEOUT = 5.0
MAX_SIZE = 1 << 18
log = logging.getLogger("okayed")

Jwk = Mapping[str, Any]


class JwksCache:
    """The cached key set at one URL; `clock` is in seconds."""

    def __init__(self, url: str, http: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._keys: Mapping[str, Jwk] = {}
        self._fetched_at = -math.inf
        self._fetching: asyncio.Future[None] | None = None

    async def find(self, kid: str) -> Jwk | None:
        """Return the key with this ID, or None; waits for a fetch only if the key is unknown."""
        if self._due(kid):
            self._fetched_at = self._clock()
            # A separate task, because callers share it: a caller that disconnects must not cancel it for the others.
            self._fetching = asyncio.ensure_future(self._refresh())
        if kid not in self._keys and self._fetching is not None:
            await asyncio.shield(self._fetching)
        return self._keys.get(kid)

    def _due(self, kid: str) -> bool:
        return self._clock() - self._fetched_at >= (MAX_AGE if kid in self._keys else PAUSE)

    async def _refresh(self) -> None:
        try:
            self._keys = _parse_keys(await self._fetch())
        except (_JwksError, aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            # A library's message may quote the response, so only the type is logged.
            reason = str(error) if isinstance(error, _JwksError) else type(error).__name__
            log.warning(
                "the keys at %s could not be fetched (%s); the known keys are still in use",
                urlsplit(self._url).hostname, reason,
            )  # fmt: skip

    async def _fetch(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with self._http.get(self._url, allow_redirects=False, timeout=timeout) as answer:
            if answer.status != 200:
                raise _JwksError(f"HTTP {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > MAX_SIZE:
                    raise _JwksError(f"longer than {MAX_SIZE} bytes")
            return bytes(body)


class _JwksError(Exception):
    """The response has no usable keys; the message says why."""


class _JwksDocument(msgspec.Struct):
    keys: list[dict[str, Any]]


def _parse_keys(body: bytes) -> Mapping[str, Jwk]:
    """Return the public signature keys by ID. Keys with private members are ignored."""
    found = msgspec.json.decode(body, type=_JwksDocument).keys
    return {
        key["kid"]: key
        for key in found
        if isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig" and "d" not in key
    }
