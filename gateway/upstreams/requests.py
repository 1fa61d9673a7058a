"""A server that may not ask everything of its clients: what the config does not let it ask is refused for the client.

MCP lets a server turn to the client while it works: for the client's model (sampling), its user (elicitation), its folders
(roots); since 2026-07-28 by an answer that says `input_required`. A server that is trusted with a tool need not be trusted
with these.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import CutError, GatewayError
from gateway.upstreams import Upstream
from gateway.upstreams.reply import JSON, Reply, read_body, replace_body
from gateway.wire import frames, sse

#: What a server may ask, and the request by which it does.
KINDS = {"sampling": "sampling/createMessage", "elicitation": "elicitation/create", "roots": "roots/list"}
#: What ends with the request that was refused, and what asks nothing of anybody.
ALWAYS_ALLOWED = frozenset({"ping", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel"})
#: What lets a word be in a frame that does not show it: an escape, or another encoding than UTF-8.
_DISGUISE_MARKS = (b"\\u", b"\0")
UNREADABLE_ANSWER = "The server's answer could not be read."
NOT_ALLOWED = "The gateway does not let this server ask for that."
log = logging.getLogger("okayed.upstreams")


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """An upstream that may ask only these kinds of things."""

    name: str
    inner: Upstream
    kinds: Iterable[str]
    _methods: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Turn the kinds into the methods that may pass."""
        object.__setattr__(self, "_methods", ALWAYS_ALLOWED.union(KINDS[kind] for kind in self.kinds))

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; what the server asks in it and may not is answered here."""
        reply = await self.inner.send(verb, body, headers)
        if reply.streams:
            return replace(reply, chunks=self._filter_stream(reply.chunks, headers))
        answer = await read_body(reply)
        if reply.status == 202 or reply.media_type != JSON:
            # It holds no frame; the words of a refusal may be read all the same.
            return replace_body(reply, answer if reply.status >= 400 else b"")
        return replace_body(reply, self._filter_frame(answer) if answer.strip() else answer)

    def knows(self, headers: Mapping[str, str]) -> bool | None:
        """See `Upstream.knows`."""
        return self.inner.knows(headers)

    async def close(self) -> None:
        """Close what stands behind."""
        await self.inner.close()

    async def _filter_stream(
        self, chunks: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        async for event in sse.events(chunks):
            if not event.data.strip():
                yield event.raw
            elif (asks := self._forbidden_method(event.data)) is not None:
                await self._send_refusal(event.data, asks, headers)
            else:
                answer = self._filter_input_requests(event.data)
                yield event.raw if answer == event.data else event.with_data(answer)

    def _filter_frame(self, body: bytes) -> bytes:
        """Return what is to cross of a body that is one frame: an answer, where no request has its place."""
        if (asks := self._forbidden_method(body)) is not None:
            log.warning("%s asked for %s in the place of an answer, which it may not", self.name, asks)
            raise CutError("The server asked for something in the place of its answer.")
        return self._filter_input_requests(body)

    def _forbidden_method(self, frame: bytes) -> str | None:
        """Return the method of a request that the server may not make; None for every other frame."""
        said = _parse_members(frame, b"method")
        method = str(said.get("method"))
        return method if {"method", "id"} <= said.keys() and method not in self._methods else None

    async def _send_refusal(self, frame: bytes, method: str, headers: Mapping[str, str]) -> None:
        """Answer the server in the client's place."""
        log.warning("%s asked for %s, which it may not", self.name, method)
        own = {name: value for name, value in headers.items() if name != "last-event-id"}
        try:
            body = frames.error(_parse_members(frame)["id"], -32601, NOT_ALLOWED)
            (await self.inner.send("POST", body, own)).close()
        except GatewayError as error:
            log.warning("%s could not be told that it may not: %s", self.name, error)

    def _filter_input_requests(self, body: bytes) -> bytes:
        """Return an answer as it came, or an error in its place when it asks for what it may not (2026-07-28)."""
        result = _parse_members(body, b"inputRequests").get("result")
        request = result.get("inputRequests") if isinstance(result, dict) else None
        questions = request.values() if isinstance(request, dict) else ()
        methods = [str(one.get("method")) if isinstance(one, dict) else None for one in questions]
        if all(method in self._methods for method in methods):
            return body
        log.warning("%s asked for %s, which it may not", self.name, ", ".join(map(str, methods)))
        return frames.error(_parse_members(body).get("id"), -32603, NOT_ALLOWED)


def _parse_members(frame: bytes, word: bytes = b"") -> Mapping[str, Any]:
    """Return the members of a frame, read only when *word* can be in it: {} when it cannot.

    Raises `CutError` when it is not one object, or can be read in two ways and so by a client in another.
    """
    if frame.lstrip(b" \t\r\n").startswith(b"{") and not any(
        one in frame for one in (word, *_DISGUISE_MARKS)
    ):
        return {}
    try:
        value = frames.parse_json(frame, max_bytes=frames.MAX_SERVER_BYTES)
    except frames.FrameError as error:
        raise CutError(UNREADABLE_ANSWER) from error
    if not isinstance(value, dict):
        raise CutError(UNREADABLE_ANSWER)
    return value
