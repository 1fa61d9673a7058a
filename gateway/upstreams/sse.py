"""An MCP server with the HTTP+SSE transport of 2024-11-05: requests by POST, all responses on one event stream.

A GET opens the stream, which is the session. Its first event names the endpoint for POSTs. An endpoint of another
origin is refused: calls and credentials would go there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from urllib.parse import urljoin

from gateway.errors import ConnectionLostError, GatewayError, NotSentError
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.http import ServerEndpoint
from gateway.upstreams.http1.address import Address, parse_address
from gateway.upstreams.http1.pool import ConnectionPool
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest
from gateway.upstreams.reply import Reply, read_body
from gateway.upstreams.sessions import SessionUpstream
from gateway.wire import sse

#: Seconds a server may take to open its stream and name its endpoint.
CONNECT_TIMEOUT = 10.0
log = logging.getLogger("okayed.servers")


class MessageRefusedError(ConnectionLostError):
    """The server refused a message with an HTTP error."""

    def __init__(self, http_status: int) -> None:
        super().__init__(f"The server refused the message with HTTP {http_status}.")
        self.http_status = http_status


@dataclass(frozen=True, slots=True, kw_only=True)
class SseServer:
    """The address of one server, its credentials and its connections."""

    name: str
    url: str
    credentials: Credentials
    requests: ConnectionPool
    #: Carries the streams; `requests` does if it is omitted.
    streams: ConnectionPool | None = None

    async def open(self) -> "SseConnection":
        """Open the stream; raises `NotSentError`, or `MessageRefusedError` if the server rejects the credentials."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._connect()
        except MessageRefusedError:
            raise
        except (ConnectionLostError, TimeoutError) as error:
            raise NotSentError("The server did not name its endpoint for messages.") from error

    async def _connect(self) -> "SseConnection":
        pool, address = self.streams or self.requests, parse_address(self.url)
        reply = await ServerEndpoint(address, self.credentials).send(pool, "GET", b"", {})
        try:
            _check_reply(reply)
            events = sse.split_events(reply.chunks)
            endpoint = ServerEndpoint(
                _endpoint_address(self.url, await _read_endpoint(events)), self.credentials
            )
            return SseConnection(self, reply, events, endpoint)
        except BaseException:
            reply.close()
            raise

    async def post(self, endpoint: ServerEndpoint, frame: bytes) -> None:
        """Post one message; raises `NotSentError`, `MessageRefusedError` or `ConnectionLostError`."""
        reply = await endpoint.send(self.requests, "POST", frame, {"accept": "*/*"})
        try:
            if reply.status >= 300:
                raise MessageRefusedError(reply.status)
            with suppress(ConnectionLostError):  # the server accepted the message; its body does not matter
                await read_body(reply)
        finally:
            reply.close()


class SseConnection(MultiplexedConnection):
    """One open event stream and its endpoint."""

    def __init__(
        self,
        source: SseServer,
        stream: Reply,
        events: AsyncIterator[sse.Event],
        endpoint: ServerEndpoint,
    ) -> None:
        super().__init__(source.name)
        self._source = source
        self._stream = stream
        self._endpoint = endpoint
        self._spawn(self._read(events))

    def _request(self, frame: bytes, request: PendingRequest, /) -> None:
        """Post in a separate task: some servers complete the POST only after they respond on the stream."""
        self._spawn(self._post(frame, request))

    async def _post(self, frame: bytes, request: PendingRequest) -> None:
        try:
            await self._notify(frame)
        except GatewayError as error:
            request.add(error)

    async def _notify(self, frame: bytes) -> None:
        await self._source.post(self._endpoint, frame)

    async def _read(self, events: AsyncIterator[sse.Event]) -> None:
        try:
            async for event in events:
                if event.data and event.kind == "message":
                    self._handle_frame(event.data)
        except ConnectionLostError as error:
            log.info("%s: the event stream broke: %s", self.name, error)
        finally:
            self._mark_ended()

    async def stop(self) -> None:
        """Close the stream, which ends the session in this transport."""
        for task in self._tasks:
            task.cancel()
        self._stream.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class SseUpstream(SessionUpstream):
    """One server with one event stream per session."""

    def __init__(self, source: SseServer, clock: Callable[[], float]) -> None:
        super().__init__(source.open, clock)

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`. An HTTP refusal is returned with the server's status."""
        try:
            return await super().send(verb, body, headers)
        except MessageRefusedError as error:
            return Reply(status=error.http_status)


def _check_reply(reply: Reply) -> None:
    if reply.status == 401:
        raise MessageRefusedError(reply.status)
    if reply.status != 200 or not reply.streams:
        raise NotSentError(
            f"The server answered HTTP {reply.status} without an event stream;"
            " is it an HTTP+SSE server (transport: sse)?"
        )


async def _read_endpoint(events: AsyncIterator[sse.Event]) -> str:
    """Return the endpoint in the first event; raises `ConnectionLostError` if another event comes first."""
    async for event in events:
        if event.data and event.kind != "endpoint":
            break
        if event.data:
            return event.data.decode("utf-8", "replace")
    raise ConnectionLostError


def _endpoint_address(url: str, endpoint: str) -> Address:
    """Return the address of the endpoint; raises `NotSentError` if its origin is not the server's."""
    ours = parse_address(url)
    try:
        address = parse_address(urljoin(url, endpoint))
    except ValueError:
        address = None
    if address is None or address.origin != ours.origin:
        raise NotSentError("The server named an endpoint of another origin; it is not used.")
    return replace(address, authorization=ours.authorization)
