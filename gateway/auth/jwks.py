"""The public keys of one issuer: fetched when a token names one that is not there, kept when a fetch fails."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

#: Seconds between two fetches, whatever keys tokens name.
PAUSE = 30.0
#: Seconds after which keys are fetched anew in the background, so that a withdrawn one does not stay.
MAX_AGE = 3600.0
#: Seconds that a fetch may take, and bytes that it may bring.
TIMEOUT = 5.0
MAX_SIZE = 1 << 18
log = logging.getLogger("okayed")

Jwk = Mapping[str, Any]


class JwksCache:
    """The key set at one address."""

    def __init__(self, url: str, http: aiohttp.ClientSession, clock: Callable[[], float]) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._keys: Mapping[str, Jwk] = {}
        self._asked = -math.inf
        self._asking: asyncio.Future[None] | None = None

    async def find(self, kid: str) -> Jwk | None:
        """Return the key of this id, or None. Only a key that is not there is waited for."""
        if self._due(kid):
            self._asked = self._clock()
            # On its own and kept: callers share it, and one that hangs up does not end it for the others.
            self._asking = asyncio.ensure_future(self._ask())
        if kid not in self._keys and self._asking is not None:
            await asyncio.shield(self._asking)
        return self._keys.get(kid)

    def _due(self, kid: str) -> bool:
        return self._clock() - self._asked >= (MAX_AGE if kid in self._keys else PAUSE)

    async def _ask(self) -> None:
        try:
            self._keys = _parse_keys(await self._fetch())
        except (_JwksError, aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            # Not a library's own words: they may hold what the other side sent.
            reason = str(error) if isinstance(error, _JwksError) else type(error).__name__
            log.warning(
                "the keys at %s could not be fetched (%s); the ones there are stay",
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
    """An answer that holds no keys; the message says why."""


class _JwksDocument(msgspec.Struct):
    keys: list[dict[str, Any]]


def _parse_keys(body: bytes) -> Mapping[str, Jwk]:
    """Return the public keys for signatures by their ids. One that was published with its private half is nobody's."""
    found = msgspec.json.decode(body, type=_JwksDocument).keys
    return {
        key["kid"]: key
        for key in found
        if isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig" and "d" not in key
    }
