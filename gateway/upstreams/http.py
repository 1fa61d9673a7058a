"""An MCP server over Streamable HTTP. Each server has its own connections and credentials.

Redirects are not followed: a 307 would send the call and the credentials elsewhere. Answers are not decompressed
beyond their limits. A POST is never retried.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from types import SimpleNamespace

import aiohttp
from yarl import URL

from gateway.errors import ConnectionLostError, NotSentError
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.reply import EVENTS, JSON, Reply
from gateway.wire import protocol

#: Seconds to get a connection, new or from the pool. An answer has no time limit: the server may wait for a person.
CONNECT_SECONDS = 10.0
#: TCP keepalive by socket option: seconds before the first probe and between probes, and the number of probes.
#: Without it the gateway would wait forever for a server that vanished. The names differ between platforms.
KEEPALIVE_OPTIONS = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: Seconds an idle connection is kept. Common servers close theirs after 5 s; a call must not be sent on a connection
#: that is about to close.
KEEP_ALIVE_SECONDS = 4.0
#: The most connections to one server that carry long-lived streams.
MAX_STREAMS = 1000
#: Bodies longer than this (bytes) are written in chunks.
LARGE_BODY = 1 << 20


@dataclass(slots=True)
class _QueueState:
    """Whether a request waits for a connection because all of them are in use."""

    queued: bool = False


async def _enter_queue(_session: object, context: SimpleNamespace, _params: object) -> None:
    _set_queued(context, value=True)


async def _leave_queue(_session: object, context: SimpleNamespace, _params: object) -> None:
    _set_queued(context, value=False)


def _set_queued(context: SimpleNamespace, *, value: bool) -> None:
    if isinstance(queue_state := context.trace_request_ctx, _QueueState):
        queue_state.queued = value


def _trace_queue() -> aiohttp.TraceConfig:
    """Return a trace that records whether a request waits in the queue for a connection."""
    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(_enter_queue)
    trace.on_connection_queued_end.append(_leave_queue)
    return trace


def open_client_session(socket: str = "", *, connections: int = MAX_STREAMS) -> aiohttp.ClientSession:
    """Open a client session with at most *connections*, over a Unix *socket* if given; the caller closes it."""
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
    """The connections to one server. Streams have their own, so that they cannot use up those for requests."""

    requests: aiohttp.ClientSession
    streams: aiohttp.ClientSession


class ConnectionPools:
    """The connections to each server, closed together at shutdown.

    A server that is removed from the config keeps its connections until then: calls may still run on them.
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
        for pool in self._pools.values():
            await pool.requests.close()
            await pool.streams.close()


def _open_keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Create a socket with TCP keepalive."""
    opened = socket.socket(*address[:3])
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE_OPTIONS.items():
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return opened


class HttpUpstream:
    """One server behind one URL."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        session: aiohttp.ClientSession,
        streams: aiohttp.ClientSession | None = None,
    ) -> None:
        """*streams* carries the long-lived streams; *session* does if it is omitted."""
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

    def line(self) -> None:
        """Return None: TODO."""

    def knows(self, _headers: Mapping[str, str], /) -> None:
        """Return None: the server keeps its sessions itself."""

    async def close(self) -> None:
        """Do nothing: the application owns the connections."""


async def send_request(
    session: aiohttp.ClientSession,
    verb: str,
    url: str | URL,
    *,
    headers: Mapping[str, str],
    credentials: Credentials,
    body: bytes = b"",
) -> aiohttp.ClientResponse:
    """Send one request with the gateway's credentials; raises errors as `Upstream.send` does."""
    own = await credentials.headers()
    queue_state = _QueueState()
    try:
        response = await session.request(
            verb, url, data=_request_body(body), headers={**headers, **own}, allow_redirects=False,
            trace_request_ctx=queue_state,
        )  # fmt: skip
    except aiohttp.ClientConnectorError as error:
        raise NotSentError(
            f"The server could not be reached ({error.os_error.strerror or 'no answer'})."
        ) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise NotSentError(_timeout_message(queue_state)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionLostError from error
    if response.status == 401:
        credentials.mark_refused(own)
    return response


def _timeout_message(queue_state: _QueueState) -> str:
    waited = f"{CONNECT_SECONDS:.0f} s"
    if queue_state.queued:
        return (
            f"All connections to the server have been in use for {waited}; nothing was sent. Try again later."
        )
    return f"The server could not be reached (no connection within {waited})."


def _request_body(body: bytes) -> bytes | BytesIO | None:
    """Return a large body as a file, which aiohttp writes in chunks without blocking other requests."""
    return BytesIO(body) if len(body) > LARGE_BODY else body or None


def _content_headers(verb: str) -> Mapping[str, str]:
    if verb == "POST":
        return {"Content-Type": JSON, "Accept": f"{JSON}, {EVENTS}"}
    return {"Accept": EVENTS}


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield the body in chunks; raises `ConnectionLostError` if it ends early."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectionLostError from error


def _release(response: aiohttp.ClientResponse) -> None:
    """Return the connection to the pool. If the body was not read to its end, close it, which cancels the request."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()
