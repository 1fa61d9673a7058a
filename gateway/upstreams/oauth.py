"""The gateway's own access token for a server, by OAuth 2.1 client credentials.

The token is fetched when a request needs it, one fetch at a time, and reused until shortly before it expires. A token
that the server rejects is dropped: the next request fetches a new one. The rejected request is not retried.
"""

import asyncio
import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urldefrag

import aiohttp
import msgspec

from gateway.errors import ConnectionLostError, NotSentError
from gateway.upstreams.client_session import read_chunks
from gateway.upstreams.reply import JSON, join

#: Seconds the token endpoint may take to answer.
TOKEN_TIMEOUT = 20.0
#: Lifetime of a token in seconds if the response has no expires_in (RFC 6749, section 5.1, only recommends it).
DEFAULT_LIFETIME = 300.0
#: Seconds before its expiry at which a token is replaced; at most half of its lifetime.
MARGIN = 30.0
#: Error codes of a token endpoint (RFC 6749, section 5.2; RFC 8707, section 2). The rest of its response is not logged.
ERROR_CODES = frozenset(
    {
        "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
        "invalid_scope", "invalid_target",
    }
)  # fmt: skip
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750, section 2.1
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]+)?")
_USER_IN_URL = re.compile(r"(?<=//)[^/?]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """The gateway's registration at a token endpoint, and the token that it requests."""

    token_url: str
    id: str
    secret: str = field(repr=False)
    #: The resource indicator of the token (RFC 8707).
    resource: str
    scope: str | None = None

    @property
    def authorization(self) -> str:
        """The Basic authentication header (RFC 6749, section 2.3.1): id and secret are form-encoded first."""
        pair = f"{quote_plus(self.id)}:{quote_plus(self.secret)}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    @property
    def form(self) -> Mapping[str, str]:
        """The form fields of the token request."""
        resource = _USER_IN_URL.sub("", urldefrag(self.resource).url)
        request = {"grant_type": "client_credentials", "resource": resource}
        return request | ({"scope": self.scope} if self.scope else {})


class ClientCredentials:
    """The access token for one server."""

    def __init__(
        self,
        client: OAuthClient,
        http: aiohttp.ClientSession,
        clock: Callable[[], float],
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._client = client
        self._http = http
        self._clock = clock
        self._extra_headers = extra_headers or {}
        #: The headers with the token; None before the first fetch and after a refusal.
        self._headers: Mapping[str, str] | None = None
        self._usable_until = 0.0
        self._fetching = asyncio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """Return the headers with a valid token; raises `NotSentError` if none can be fetched."""
        async with self._fetching:
            return self.current() or await self._fetch()

    def current(self) -> Mapping[str, str] | None:
        """Return the headers with a valid token, or None."""
        return self._headers if self._clock() < self._usable_until else None

    def mark_refused(self, headers: Mapping[str, str]) -> None:
        """Drop the token in these headers, unless it was replaced already."""
        if headers == self._headers:
            self._headers = None

    async def _fetch(self) -> Mapping[str, str]:
        requested_at = self._clock()
        answer = await self._request_token()
        token, lifetime = answer.get("access_token"), _token_lifetime(answer.get("expires_in"))
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise _token_error("its response has no usable access_token")
        if str(answer.get("token_type")).lower() != "bearer":
            raise _token_error("its token is not a Bearer token")
        self._headers = {**self._extra_headers, "Authorization": f"Bearer {token}"}
        self._usable_until = requested_at + max(lifetime - MARGIN, lifetime / 2)
        return self._headers

    async def _request_token(self) -> Mapping[str, Any]:
        """Post the token request; returns the members of the response."""
        try:
            async with (
                asyncio.timeout(TOKEN_TIMEOUT),
                self._http.post(
                    self._client.token_url,
                    data=self._client.form,
                    headers={"Authorization": self._client.authorization, "Accept": JSON},
                    allow_redirects=False,
                ) as response,
            ):
                members = _parse_object(await join(read_chunks(response)))
        except TimeoutError as error:
            raise _token_error("it did not answer in time") from error
        except (aiohttp.ClientError, ConnectionLostError, OSError) as error:
            raise _token_error("it could not be reached") from error
        if response.status != 200:
            reason = str(members.get("error"))
            raise _token_error(f"HTTP {response.status}" + (f", {reason}" if reason in ERROR_CODES else ""))
        return members


def _token_error(why: str) -> NotSentError:
    return NotSentError(
        f"The token endpoint gave no token for this server ({why}); nothing was sent to the server."
    )


def _parse_object(body: bytes) -> Mapping[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _token_lifetime(expires_in: object) -> float:
    """Return a token's lifetime in seconds; some endpoints send the number as a string."""
    return float(str(expires_in)) if _NUMBER.fullmatch(str(expires_in)) else DEFAULT_LIFETIME
