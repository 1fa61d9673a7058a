"""Filters the requests that a server sends to its clients: refuses those that the config does not allow.

In MCP a server can use the client's model (sampling), question its user (elicitation) and list its folders (roots).
Since 2026-07-28 it does so with an `input_required` result. Trusting a server's tools does not mean trusting these.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from gateway.errors import ConnectionLostError, GatewayError
from gateway.upstreams import Upstream
from gateway.upstreams.lines import WrappedLine
from gateway.upstreams.reply import EVENTS, JSON, Reply, read_body, replace_body
from gateway.wire import frames, sse

#: The kinds of server requests in `may_ask`, and their methods.
KINDS = {"sampling": "sampling/createMessage", "elicitation": "elicitation/create", "roots": "roots/list"}
#: Methods that every server may use: they request nothing new from the client.
ALWAYS_ALLOWED = frozenset({"ping", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel"})
#: The members by which a server requests something.
_ASKING = (b"method", b"inputRequests")
#: A byte is found in a fraction of the time of a string.
_BACKSLASH = ord("\\")
UNREADABLE_ANSWER = "The server's answer could not be read."
NOT_ALLOWED = "The gateway does not allow this request from the server."
log = logging.getLogger("okayed.upstreams")


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """An upstream whose server may send only requests of these kinds."""

    name: str
    inner: Upstream
    kinds: Iterable[str]
    _methods: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Map the kinds to the methods that may pass."""
        object.__setattr__(self, "_methods", ALWAYS_ALLOWED.union(KINDS[kind] for kind in self.kinds))

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; requests that the server may not send are refused here."""
        reply = await self.inner.send(verb, body, headers)
        if not reply.streams and reply.body is None:
            try:
                reply = replace_body(reply, await read_body(reply))
            except BaseException:
                reply.close()
                raise
        return self._filter(reply, headers)

    def line(self) -> WrappedLine | None:
        """Reserve a connection of the inner upstream; its replies are filtered."""
        line = self.inner.line()
        return None if line is None else WrappedLine(line, self._filter)

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """See `Upstream.knows`."""
        return self.inner.knows(headers)

    async def close(self) -> None:
        """Close the inner upstream."""
        await self.inner.close()

    def _filter(self, reply: Reply, headers: Mapping[str, str]) -> Reply:
        """Return the reply to a request with these headers, filtered; raises `ConnectionLostError`."""
        media_type = reply.media_type
        if media_type == EVENTS:
            return replace(reply, chunks=self._filter_stream(reply.chunks, headers))
        is_frame = media_type == JSON and reply.status != 202
        if reply.body is None:
            return replace(reply, chunks=self._filter_chunks(reply, is_frame=is_frame))
        filtered = self._filter_body(reply, reply.body, is_frame=is_frame)
        return reply if filtered is reply.body else replace_body(reply, filtered)

    async def _filter_chunks(self, reply: Reply, *, is_frame: bool) -> AsyncIterator[bytes]:
        yield self._filter_body(reply, await read_body(reply), is_frame=is_frame)

    def _filter_body(self, reply: Reply, body: bytes, *, is_frame: bool) -> bytes:
        if is_frame:
            return self._filter_frame(body) if _may_contain(body, *_ASKING) and body.strip() else body
        return body if reply.status >= 400 else b""  # the text of an error response may pass

    async def _filter_stream(
        self, chunks: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        async for event in sse.split_events(chunks):
            if not event.data.strip():
                yield event.raw
            elif (forbidden := self._forbidden_method(event.data)) is not None:
                await self._send_refusal(event.data, forbidden, headers)
            else:
                answer = self._filter_input_requests(event.data)
                yield event.raw if answer == event.data else event.with_data(answer)

    def _filter_frame(self, body: bytes) -> bytes:
        """Return a body that is one response, filtered; raises `ConnectionLostError` if it is a request."""
        if (forbidden := self._forbidden_method(body)) is not None:
            log.warning("%s sent a %s request instead of a response", self.name, forbidden)
            raise ConnectionLostError("The server sent a request instead of its response.")
        return self._filter_input_requests(body)

    def _forbidden_method(self, frame: bytes) -> str | None:
        """Return the method of a request that the server may not send; None for any other frame."""
        members = _parse_members(frame, b"method")
        method = str(members.get("method"))
        return method if {"method", "id"} <= members.keys() and method not in self._methods else None

    async def _send_refusal(self, frame: bytes, method: str, headers: Mapping[str, str]) -> None:
        """Answer the server with an error in place of the client."""
        log.warning("%s requested %s, which may_ask does not allow", self.name, method)
        own = {name: value for name, value in headers.items() if name != "last-event-id"}
        try:
            body = frames.build_error(_parse_members(frame)["id"], -32601, NOT_ALLOWED)
            (await self.inner.send("POST", body, own)).close()
        except GatewayError as error:
            log.warning("the refusal could not be sent to %s: %s", self.name, error)

    def _filter_input_requests(self, body: bytes) -> bytes:
        """Return a response unchanged, or an error if its inputRequests are not allowed (2026-07-28)."""
        result = _parse_members(body, b"inputRequests").get("result")
        requests = result.get("inputRequests") if isinstance(result, dict) else None
        questions = requests.values() if isinstance(requests, dict) else ()
        methods = [str(one.get("method")) if isinstance(one, dict) else None for one in questions]
        if all(method in self._methods for method in methods):
            return body
        log.warning("%s requested %s, which may_ask does not allow", self.name, ", ".join(map(str, methods)))
        return frames.build_error(_parse_members(body).get("id"), -32603, NOT_ALLOWED)


def _may_contain(frame: bytes, word: bytes, other: bytes | None = None) -> bool:
    """Return whether a frame may have a member of these names; escapes and other encodings than UTF-8 could hide one."""
    return (
        word in frame
        or (other is not None and other in frame)
        or (_BACKSLASH in frame and b"\\u" in frame)
        or 0 in frame
        or not (frame.startswith(b"{") or frame.lstrip(b" \t\r\n").startswith(b"{"))
    )


def _parse_members(frame: bytes, word: bytes = b"") -> Mapping[str, Any]:
    """Return the members of a frame; {} without parsing if *word* cannot be in it.

    Raises `ConnectionLostError` unless it is one unambiguous object: the client might read it differently.
    """
    if not _may_contain(frame, word):
        return {}
    try:
        value = frames.parse_json(frame, max_bytes=frames.MAX_SERVER_BYTES)
    except frames.FrameError as error:
        raise ConnectionLostError(UNREADABLE_ANSWER) from error
    if not isinstance(value, dict):
        raise ConnectionLostError(UNREADABLE_ANSWER)
    return value
