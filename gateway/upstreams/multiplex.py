"""One connection to a server that answers out of order: incoming frames are routed to the requests that wait.

Requests go out with our ids and progress tokens, and responses come back with the client's. Clients that share a
connection, or reuse an id, never receive each other's responses.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Coroutine
from itertools import count

import msgspec

from gateway.errors import ConnectionLostError, GatewayError

#: The most server messages kept while no stream is open for them.
MAX_UNSENT = 256

PROGRESS = "progressToken"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

Raw = msgspec.Raw
Members = dict[str, Raw]
_members = msgspec.json.Decoder(Members)
_encode = msgspec.json.encode
log = logging.getLogger("okayed.servers")


class PendingRequest:
    """A request without a response yet: the frames that belong to it, in order, the response last."""

    def __init__(self, number: int, frame: Members) -> None:
        self.number = number
        self.client_id = frame["id"]
        self.token = _meta(frame).get(PROGRESS)
        self._frames: asyncio.Queue[bytes | GatewayError] = asyncio.Queue()

    def add(self, frame: bytes | GatewayError) -> None:
        """Queue the next frame, or the error that ends the exchange."""
        self._frames.put_nowait(frame)

    async def next_frame(self, seconds: float | None = None) -> bytes | None:
        """Return the next frame, or None after *seconds*; raises the error that ended the exchange."""
        try:
            async with asyncio.timeout(seconds):
                frame = await self._frames.get()
        except TimeoutError:
            return None
        if isinstance(frame, GatewayError):
            raise frame
        return frame

    async def response(self) -> bytes:
        """Return the response; skip the frames before it."""
        while True:
            frame = await self.next_frame()
            if frame is not None and is_response(frame):
                return frame


class MultiplexedConnection(ABC):
    """A connection and its pending requests. Subclasses carry the frames; they call `_handle_frame` and `_mark_ended`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: dict[int, PendingRequest] = {}
        self.backlog: deque[bytes] = deque(maxlen=MAX_UNSENT)
        self.has_backlog = asyncio.Event()
        self.ended = asyncio.Event()
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _request(self, frame: bytes, exchange: PendingRequest, /) -> None:
        """Start sending a request; a later error is added to its exchange."""

    @abstractmethod
    async def _notify(self, frame: bytes) -> None:
        """Send a frame that gets no response."""

    @abstractmethod
    async def stop(self) -> None:
        """Close the connection and release its resources."""

    async def last_log_line(self) -> str:
        """Return the server's last line on stderr, for the operator, or ""."""
        return ""

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def send_request(self, body: bytes) -> PendingRequest:
        """Send a request under an id of our own."""
        frame = _members.decode(body)
        exchange = PendingRequest(next(self._numbers), frame)
        self._request(_with_own_ids(frame, exchange), exchange)
        self.pending[exchange.number] = exchange
        return exchange

    async def send_message(self, body: bytes) -> None:
        """Send a notification, or the client's response to a request from the server."""
        frame = _members.decode(body)
        if _decode_value(frame.get("method")) == "notifications/cancelled":
            await self._forward_cancellation(frame)
        else:
            await self._notify(body)

    async def _forward_cancellation(self, frame: Members) -> None:
        params = _members.decode(frame.get("params", Raw(b"{}")))
        wanted = _decode_value(params.get("requestId"))
        named = [
            exchange for exchange in self.pending.values() if _decode_value(exchange.client_id) == wanted
        ]
        if named:
            await self._notify(_encode(frame | {"params": params | {"requestId": named[-1].number}}))

    def forget(self, exchange: PendingRequest) -> None:
        """Drop a request whose response is no longer wanted."""
        self.pending.pop(exchange.number, None)

    def _mark_ended(self) -> None:
        """Fail every pending request: no more frames will come."""
        self.ended.set()
        self.has_backlog.set()
        for exchange in self.pending.values():
            exchange.add(ConnectionLostError("The server ended before it answered."))

    def _handle_frame(self, data: bytes) -> None:
        """Route one frame from the server."""
        try:
            self._route(_members.decode(data))
        except msgspec.MsgspecError:
            log.warning("%s: dropped a message that is not JSON-RPC", self.name)

    def _route(self, frame: Members) -> None:
        if _is_response(frame):
            self._deliver_response(frame)
        elif (exchange := self._find_request(frame)) is not None:
            exchange.add(_encode(frame))
        else:
            self.backlog.append(_encode(frame))
            self.has_backlog.set()

    def _deliver_response(self, frame: Members) -> None:
        exchange = self.pending.pop(_decode_number(frame["id"]), None)
        if exchange is None:
            log.info("%s: dropped a response that matches no pending request", self.name)
            return
        exchange.add(_encode(_restore_subscription_id(frame | {"id": exchange.client_id}, exchange)))

    def _find_request(self, frame: Members) -> PendingRequest | None:
        """Find the request that a server's message belongs to, and restore the client's token or id in it."""
        params = _members.decode(frame.get("params", Raw(b"{}")))
        if (token := params.get(PROGRESS)) is not None and (found := self.pending.get(_decode_number(token))):
            frame["params"] = Raw(_encode(params | {PROGRESS: found.token}))
            return found
        meta = _members.decode(params.get("_meta", Raw(b"{}")))
        if (mark := meta.get(SUBSCRIPTION)) is not None and (found := self.pending.get(_decode_number(mark))):
            frame["params"] = Raw(_encode(params | {"_meta": meta | {SUBSCRIPTION: found.client_id}}))
            return found
        return next(iter(self.pending.values())) if len(self.pending) == 1 else None


def is_response(frame: bytes) -> bool:
    """Return whether a server's frame is a response."""
    return _is_response(_members.decode(frame))


def _is_response(frame: Members) -> bool:
    return "method" not in frame and "id" in frame


def _decode_value(raw: Raw | None) -> object:
    return None if raw is None else msgspec.json.decode(raw)


def _decode_number(raw: Raw) -> int:
    value = _decode_value(raw)
    return value if isinstance(value, int) else -1


def _meta(frame: Members) -> Members:
    params = _members.decode(frame.get("params", Raw(b"{}")))
    return _members.decode(params.get("_meta", Raw(b"{}")))


def _with_own_ids(frame: Members, exchange: PendingRequest) -> bytes:
    """Return the frame with our id, and our progress token if the client sent one; other members are unchanged."""
    ours: dict[str, object] = {**frame, "id": exchange.number}
    if exchange.token is not None:
        params = _members.decode(frame["params"])
        ours["params"] = params | {"_meta": _meta(frame) | {PROGRESS: exchange.number}}
    return _encode(ours)


def _restore_subscription_id(frame: Members, exchange: PendingRequest) -> Members:
    """Restore the client's id in the response that ends its subscription."""
    if SUBSCRIPTION.encode() not in bytes(frame.get("result", Raw(b""))):
        return frame
    result = _members.decode(frame["result"])
    meta = _members.decode(result.get("_meta", Raw(b"{}")))
    return frame | {"result": Raw(_encode(result | {"_meta": meta | {SUBSCRIPTION: exchange.client_id}}))}
