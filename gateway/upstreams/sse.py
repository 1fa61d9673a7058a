"""An MCP server with the HTTP+SSE transport of 2024-11-05: requests by POST, all responses on one event stream.

A GET opens the stream, which is the session. Its first event names the endpoint for POSTs. An endpoint of another
origin is refused: calls and credentials would go there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from gateway.errors import ConnectionLostError, GatewayError, NotSentError
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.http import read_chunks, send_request
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest
from gateway.upstreams.reply import EVENTS, JSON, Reply, join
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
    """The address of one server and the credentials for it."""

    name: str
    url: str
    credentials: Credentials
    http: aiohttp.ClientSession
    #: Carries the streams; `http` does if it is omitted.
    streams: aiohttp.ClientSession | None = None

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
        session = self.streams or self.http
        response = await send_request(
            session, "GET", self.url, headers={"Accept": EVENTS}, credentials=self.credentials
        )
        try:
            _check_response(response)
            events = sse.split_events(read_chunks(response))
            return SseConnection(
                self, response, events, _endpoint_url(self.url, await _read_endpoint(events))
            )
        except BaseException:
            response.close()
            raise

    async def post(self, address: URL, frame: bytes) -> None:
        """Post one message; raises `NotSentError`, `MessageRefusedError` or `ConnectionLostError`."""
        response = await send_request(
            self.http,
            "POST",
            address,
            headers={"Content-Type": JSON},
            credentials=self.credentials,
            body=frame,
        )
        try:
            if response.status >= 300:
                raise MessageRefusedError(response.status)
            with suppress(ConnectionLostError):  # the server accepted the message; its body does not matter
                await join(read_chunks(response))
        finally:
            response.close()


class SseConnection(MultiplexedConnection):
    """One open event stream and its endpoint."""

    def __init__(
        self,
        source: SseServer,
        response: aiohttp.ClientResponse,
        events: AsyncIterator[sse.Event],
        address: URL,
    ) -> None:
        super().__init__(source.name)
        self._source = source
        self._response = response
        self._address = address
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
        await self._source.post(self._address, frame)

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
        self._response.close()
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


def _check_response(response: aiohttp.ClientResponse) -> None:
    if response.status == 401:
        raise MessageRefusedError(response.status)
    if response.status != 200 or response.content_type != EVENTS:
        raise NotSentError(
            f"The server answered HTTP {response.status} without an event stream;"
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


def _endpoint_url(url: str, endpoint: str) -> URL:
    """Return the URL of the endpoint; raises `NotSentError` if its origin is not the server's."""
    ours = URL(url)
    try:
        address = URL(urljoin(url, endpoint))
        same_origin = _origin(address) == _origin(ours)
    except ValueError:
        same_origin = False
    if not same_origin:
        raise NotSentError("The server named an endpoint of another origin; it is not used.")
    return address.with_user(ours.user).with_password(ours.password)


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
