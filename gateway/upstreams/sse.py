"""An MCP server of the revision 2024-11-05: messages go out in POSTs, and all that it says comes on one stream.

A GET opens the stream, whose first event names the address to post to; the connection is the session. An address of
another origin is refused: the gateway's credentials and the calls would go there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from gateway.errors import CutError, GatewayError, NotSentError
from gateway.upstreams.credentials import Credentials
from gateway.upstreams.http import read_chunks, send_request
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest
from gateway.upstreams.reply import EVENTS, JSON, Reply, join
from gateway.upstreams.sessions import SessionUpstream
from gateway.wire import sse

#: Seconds a server has to open its stream and to name the address to post to.
CONNECT_TIMEOUT = 10.0
log = logging.getLogger("okayed.servers")


class MessageRefusedError(CutError):
    """The server refused a message."""

    def __init__(self, answered: int) -> None:
        super().__init__(f"The server refused the message with HTTP {answered}.")
        #: The HTTP status it answered.
        self.http_status = answered


@dataclass(frozen=True, slots=True, kw_only=True)
class SseServer:
    """Where a server's stream is, and what it wants to see."""

    name: str
    url: str
    credentials: Credentials
    http: aiohttp.ClientSession
    #: Carries the streams; `http` does when it is left out.
    streams: aiohttp.ClientSession | None = None

    async def open(self) -> "SseConnection":
        """Open the stream; raises `NotSentError`, or `RefusedError` when the credentials are refused."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                return await self._connect()
        except MessageRefusedError:
            raise
        except (CutError, TimeoutError) as error:
            raise NotSentError("The server did not name the address to post messages to.") from error

    async def _connect(self) -> "SseConnection":
        session = self.streams or self.http
        response = await send_request(
            session, "GET", self.url, headers={"Accept": EVENTS}, credentials=self.credentials
        )
        try:
            _check_response(response)
            events = sse.events(read_chunks(response))
            return SseConnection(
                self, response, events, _endpoint_url(self.url, await _read_endpoint(events))
            )
        except BaseException:
            response.close()
            raise

    async def post(self, address: URL, frame: bytes) -> None:
        """Post one message; raises `NotSentError`, `RefusedError` or `CutError`."""
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
            with suppress(CutError):  # the message was taken; what else is said of it does not matter
                await join(read_chunks(response))
        finally:
            response.close()


class SseConnection(MultiplexedConnection):
    """One open stream of a server, and the address that goes with it."""

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

    def _request(self, frame: bytes, exchange: PendingRequest, /) -> None:
        """Post beside the reading: some servers answer the POST only after they have answered on the stream."""
        self._spawn(self._post(frame, exchange))

    async def _post(self, frame: bytes, exchange: PendingRequest) -> None:
        try:
            await self._notify(frame)
        except GatewayError as error:
            exchange.add(error)

    async def _notify(self, frame: bytes) -> None:
        await self._source.post(self._address, frame)

    async def _read(self, events: AsyncIterator[sse.Event]) -> None:
        try:
            async for event in events:
                if event.data and event.kind == "message":
                    self._handle_frame(event.data)
        except CutError as error:
            log.info("%s: its stream was cut: %s", self.name, error)
        finally:
            self._mark_ended()

    async def stop(self) -> None:
        """Hang up, which is how this transport ends a session."""
        for task in self._tasks:
            task.cancel()
        self._response.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class SseUpstream(SessionUpstream):
    """One server, as many streams as its sessions need."""

    def __init__(self, source: SseServer, clock: Callable[[], float]) -> None:
        super().__init__(source.open, clock)

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; see `Upstream.send`. A refusal is answered as the server answered it."""
        try:
            return await super().send(verb, body, headers)
        except MessageRefusedError as error:
            return Reply(status=error.http_status)


def _check_response(response: aiohttp.ClientResponse) -> None:
    if response.status == 401:
        raise MessageRefusedError(response.status)
    if response.status != 200 or response.content_type != EVENTS:
        raise NotSentError(
            f"The server answered HTTP {response.status} and opened no stream; does it speak HTTP+SSE (transport: sse)?"
        )


async def _read_endpoint(events: AsyncIterator[sse.Event]) -> str:
    """Return the address that the first event names."""
    async for event in events:
        if event.data and event.kind != "endpoint":
            break
        if event.data:
            return event.data.decode("utf-8", "replace")
    raise CutError


def _endpoint_url(url: str, named: str) -> URL:
    """Return the address to post to; raises `NotSentError` unless it is of the server's own origin."""
    ours = URL(url)
    try:
        address = URL(urljoin(url, named))
        same = _origin(address) == _origin(ours)
    except ValueError:
        same = False
    if not same:
        raise NotSentError(
            "The server named an address of another origin to post messages to; it is not used."
        )
    return address.with_user(ours.user).with_password(ours.password)


def _origin(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.host, url.port
