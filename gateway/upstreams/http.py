"""An MCP server reached over Streamable HTTP: each server has its own connections, credentials are put in here.

Redirects are not followed (a 307 would send the call and the credentials elsewhere), answers are not decompressed
beyond their limits, and a POST is never repeated: an exchange either was not sent, or may have been.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from types import SimpleNamespace

import aiohttp
from yarl import URL

from gateway.errors import CutError, NotSentError
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.reply import EVENTS, JSON, Reply
from gateway.wire import protocol

#: Seconds to get a connection, be it a new one or one that another exchange lets go of; there is no limit on an answer,
#: which may wait for a person on the other side.
CONNECT_SECONDS = 10.0
#: TCP keepalive in seconds, by the names that platforms have for the options: the first probe, the time between probes, and how
#: many may go unanswered. Without it the gateway would wait for ever for a server that vanished.
KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Seconds an idle connection is kept. Shorter than the 5 s after which common servers close theirs, so that a
#: call is not sent into a connection that is about to close.
KEEP_ALIVE_SECONDS = 4.0
#: The most connections to one server on which streams are listened to.
MAX_STREAMS = 1000
#: Bodies longer than this (bytes) are written piece by piece.
LARGE_BODY = 1 << 20


@dataclass(slots=True)
class _QueueState:
    """Where a request stands: whether it waits in line because all connections are in use."""

    queued: bool = False


async def _enter_queue(_session: object, context: SimpleNamespace, _said: object) -> None:
    _set_queued(context, value=True)


async def _leave_queue(_session: object, context: SimpleNamespace, _said: object) -> None:
    _set_queued(context, value=False)


def _set_queued(context: SimpleNamespace, *, value: bool) -> None:
    if isinstance(place := context.trace_request_ctx, _QueueState):
        place.queued = value


def _trace_queue() -> aiohttp.TraceConfig:
    """Return what tells a request that waits in line from one whose server does not answer."""
    traces = aiohttp.TraceConfig()
    traces.on_connection_queued_start.append(_enter_queue)
    traces.on_connection_queued_end.append(_leave_queue)
    return traces


def open_client_session(socket: str = "", *, connections: int = MAX_STREAMS) -> aiohttp.ClientSession:
    """Return a client session of so many connections, over a Unix socket where one is given; close it at the end."""
    connect = (
        partial(aiohttp.UnixConnector, socket)
        if socket
        else partial(aiohttp.TCPConnector, socket_factory=_open_keepalive_socket)
    )
    return aiohttp.ClientSession(
        connector=connect(limit=connections, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent",),
        max_line_size=16 << 10,
        read_bufsize=1 << 18,
        trace_configs=[_trace_queue()],
    )


@dataclass(frozen=True, slots=True)
class ServerConnections:
    """The connections to one server. Streams have their own, so that they leave room for requests."""

    requests: aiohttp.ClientSession
    streams: aiohttp.ClientSession


class ConnectionPools:
    """The connections of one gateway, by server. All are closed together at the end.

    A server that leaves the config keeps its connections until then, because calls may still run on them.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int], ServerConnections] = {}

    def of(self, server: str, connections: int) -> ServerConnections:
        """Return the connections to a server, at most *connections* of them for requests."""
        if (server, connections) not in self._pools:
            self._pools[server, connections] = ServerConnections(
                open_client_session(connections=connections), open_client_session()
            )
        return self._pools[server, connections]

    async def close(self) -> None:
        """Close every connection."""
        for one in self._pools.values():
            await one.requests.close()
            await one.streams.close()


def _open_keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket with TCP keepalive on."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return made


class HttpUpstream:
    """One server behind one URL."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        session: aiohttp.ClientSession,
        streams: aiohttp.ClientSession | None = None,
    ) -> None:
        """*streams* carries the exchanges that only listen; *session* does when it is left out."""
        self._url = url
        self._credentials = credentials
        self._session = session
        self._streams = streams or session

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`."""
        session = self._streams if protocol.is_subscription(verb, headers) else self._session
        response = await send_request(
            session, verb, self._url,
            headers={**_content_headers(verb), **headers}, credentials=self._credentials, body=body,
        )  # fmt: skip
        return Reply(
            status=response.status,
            headers=response.headers,
            chunks=read_chunks(response),
            close=partial(_release, response),
        )

    def knows(self, _headers: Mapping[str, str], /) -> None:
        """The server keeps its sessions itself."""

    async def close(self) -> None:
        """Nothing of its own to close: the pool belongs to the application."""


async def send_request(
    session: aiohttp.ClientSession,
    verb: str,
    url: str | URL,
    *,
    headers: Mapping[str, str],
    credentials: Credentials,
    body: bytes = b"",
) -> aiohttp.ClientResponse:
    """Send one request with the gateway's credentials; raises `NotSentError` or `CutError`, as `Upstream.send` does."""
    own = await credentials.headers()
    place = _QueueState()
    try:
        response = await session.request(
            verb, url, data=_request_body(body), headers={**headers, **own}, allow_redirects=False, trace_request_ctx=place,
        )  # fmt: skip
    except aiohttp.ClientConnectorError as error:
        raise NotSentError(
            f"The server could not be reached ({error.os_error.strerror or 'no answer'})."
        ) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise NotSentError(_timeout_message(place)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise CutError from error
    if response.status == 401:
        credentials.mark_refused(own)
    return response


def _timeout_message(place: _QueueState) -> str:
    waited = f"{CONNECT_SECONDS:.0f} s"
    if place.queued:
        return (
            f"All connections to the server have been in use for {waited}; nothing was sent. Try again later."
        )
    return f"The server could not be reached (no connection within {waited})."


def _request_body(body: bytes) -> bytes | BytesIO | None:
    """Return the body as the library likes it: a large one as a file, so that writing it does not hold up others."""
    return BytesIO(body) if len(body) > LARGE_BODY else body or None


def _content_headers(verb: str) -> Mapping[str, str]:
    if verb == "POST":
        return {"Content-Type": JSON, "Accept": f"{JSON}, {EVENTS}"}
    return {"Accept": EVENTS}


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Return the body piece by piece; `CutError` when it ends before its time."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise CutError from error


def _release(response: aiohttp.ClientResponse) -> None:
    """Return the connection to the pool, or cut it: that is how this transport says "cancelled"."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()
