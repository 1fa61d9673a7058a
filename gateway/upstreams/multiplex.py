"""One connection to a server that answers out of order: routes incoming frames to the pending requests.

Requests are sent with our ids and progress tokens; responses get the client's again. Clients that share a connection,
or reuse an id, never receive each other's responses.
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
    """A request without a response yet, and the frames that belong to it, in order; the response is last."""

    def __init__(self, number: int, frame: Members) -> None:
        self.number = number
        self.client_id = frame["id"]
        self.token = _meta(frame).get(PROGRESS)
        self._frames: asyncio.Queue[bytes | GatewayError] = asyncio.Queue()

    def add(self, frame: bytes | GatewayError) -> None:
        """Queue the next frame, or the error that ends the request."""
        self._frames.put_nowait(frame)

    async def next_frame(self, seconds: float | None = None) -> bytes | None:
        """Return the next frame, or None after *seconds*; raises the error that ended the request."""
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
    """A connection and its pending requests. Subclasses transport frames and call `_handle_frame`, `_mark_ended`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: dict[int, PendingRequest] = {}
        self.backlog: deque[bytes] = deque(maxlen=MAX_UNSENT)
        self.has_backlog = asyncio.Event()
        self.ended = asyncio.Event()
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def _request(self, frame: bytes, request: PendingRequest, /) -> None:
        """Start sending a request; a later error is added to it."""

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
        """Send a request with our own id."""
        frame = _members.decode(body)
        request = PendingRequest(next(self._numbers), frame)
        self._request(_with_own_ids(frame, request), request)
        self.pending[request.number] = request
        return request

    async def send_message(self, body: bytes) -> None:
        """Send a notification, or the client's response to a request from the server."""
        frame = _members.decode(body)
        if _decode_value(frame.get("method")) == "notifications/cancelled":
            await self._forward_cancellation(frame)
        else:
            await self._notify(body)

    async def _forward_cancellation(self, frame: Members) -> None:
        params = _members.decode(frame.get("params", Raw(b"{}")))
        client_id = _decode_value(params.get("requestId"))
        cancelled = [
            request for request in self.pending.values() if _decode_value(request.client_id) == client_id
        ]
        if cancelled:
            await self._notify(_encode(frame | {"params": params | {"requestId": cancelled[-1].number}}))

    def forget(self, request: PendingRequest) -> None:
        """Drop a request whose response is no longer needed."""
        self.pending.pop(request.number, None)

    def _mark_ended(self) -> None:
        """Fail every pending request: no more frames will come."""
        self.ended.set()
        self.has_backlog.set()
        for request in self.pending.values():
            request.add(ConnectionLostError("The server ended before it answered."))

    def _handle_frame(self, data: bytes) -> None:
        """Route one frame from the server."""
        try:
            self._route(_members.decode(data))
        except msgspec.MsgspecError:
            log.warning("%s: dropped a message that is not JSON-RPC", self.name)

    def _route(self, frame: Members) -> None:
        if _is_response(frame):
            self._deliver_response(frame)
        elif (request := self._find_request(frame)) is not None:
            request.add(_encode(frame))
        else:
            self.backlog.append(_encode(frame))
            self.has_backlog.set()

    def _deliver_response(self, frame: Members) -> None:
        request = self.pending.pop(_decode_number(frame["id"]), None)
        if request is None:
            log.info("%s: dropped a response that matches no pending request", self.name)
            return
        request.add(_encode(_restore_subscription_id(frame | {"id": request.client_id}, request)))

    def _find_request(self, frame: Members) -> PendingRequest | None:
        """Find the request that a server's message belongs to, and restore the client's token or id in it."""
        params = _members.decode(frame.get("params", Raw(b"{}")))
        if (token := params.get(PROGRESS)) is not None and (found := self.pending.get(_decode_number(token))):
            frame["params"] = Raw(_encode(params | {PROGRESS: found.token}))
            return found
        meta = _members.decode(params.get("_meta", Raw(b"{}")))
        if (sub := meta.get(SUBSCRIPTION)) is not None and (found := self.pending.get(_decode_number(sub))):
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


def _with_own_ids(frame: Members, request: PendingRequest) -> bytes:
    """Return the frame with our id, and with our progress token if the client sent one; other members are unchanged."""
    outgoing: dict[str, object] = {**frame, "id": request.number}
    if request.token is not None:
        params = _members.decode(frame["params"])
        outgoing["params"] = params | {"_meta": _meta(frame) | {PROGRESS: request.number}}
    return _encode(outgoing)


def _restore_subscription_id(frame: Members, request: PendingRequest) -> Members:
    """Restore the client's id in the response that ends its subscription."""
    if SUBSCRIPTION.encode() not in bytes(frame.get("result", Raw(b""))):
        return frame
    result = _members.decode(frame["result"])
    meta = _members.decode(result.get("_meta", Raw(b"{}")))
    return frame | {"result": Raw(_encode(result | {"_meta": meta | {SUBSCRIPTION: request.client_id}}))}
