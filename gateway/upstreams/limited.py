"""A server that may not ask everything of its clients: what the config does not let it ask is refused for the client.

MCP lets a server turn to the client while it works: for the client's model (sampling), its user (elicitation), its folders
(roots); since 2026-07-28 by an answer that says `input_required`. A server that is trusted with a tool need not be trusted
with these.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway import frames, sse
from gateway.errors import CutError, GatewayError
from gateway.upstreams import Reply, Upstream, whole, with_body

#: What a server may ask, and the request by which it does.
KINDS = {"sampling": "sampling/createMessage", "elicitation": "elicitation/create", "roots": "roots/list"}
#: What ends with the request that was refused, and what asks nothing of anybody.
ALWAYS = frozenset({"ping", "tasks/get", "tasks/result", "tasks/list", "tasks/cancel"})
REFUSED = "The gateway does not let this server ask for that."
log = logging.getLogger("holdpoint.upstreams")


@dataclass(frozen=True, slots=True)
class Limited:
    """An upstream that may ask only these kinds of things."""

    name: str
    inner: Upstream
    kinds: Iterable[str]
    _methods: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Turn the kinds into the methods that may pass."""
        object.__setattr__(self, "_methods", ALWAYS.union(KINDS[kind] for kind in self.kinds))

    async def send(self, verb: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Do one exchange; what the server asks in it and may not is answered here."""
        reply = await self.inner.send(verb, body, headers)
        if reply.streams:
            return replace(reply, chunks=self._let_through(reply.chunks, headers))
        return with_body(reply, self._answer(await whole(reply.chunks)))

    async def close(self) -> None:
        """Close what stands behind."""
        await self.inner.close()

    async def _let_through(
        self, chunks: AsyncIterator[bytes], headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        async for event in sse.events(chunks):
            asks = _member(event.data, "method")
            if asks is None or asks in self._methods or "id" not in _read(event.data):
                answer = self._answer(event.data)
                yield event.raw if answer == event.data else event.carrying(answer)
            else:
                await self._refuse(event.data, asks, headers)

    async def _refuse(self, frame: bytes, method: Any, headers: Mapping[str, str]) -> None:
        """Answer the server in the client's place."""
        log.warning("%s asked for %s, which it may not", self.name, method)
        own = {name: value for name, value in headers.items() if name != "last-event-id"}
        try:
            body = frames.error(_read(frame)["id"], -32601, REFUSED)
            (await self.inner.send("POST", body, own)).close()
        except GatewayError as error:
            log.warning("%s could not be told that it may not: %s", self.name, error)

    def _answer(self, body: bytes) -> bytes:
        """Return an answer as it came, or an error in its place when it asks for what it may not (2026-07-28)."""
        result = _member(body, "result", b"inputRequests")
        asked = result.get("inputRequests") if isinstance(result, dict) else None
        questions = asked.values() if isinstance(asked, dict) else ()
        methods = [one.get("method") if isinstance(one, dict) else None for one in questions]
        if all(method in self._methods for method in methods):
            return body
        log.warning("%s asked for %s, which it may not", self.name, ", ".join(map(str, methods)))
        return frames.error(_read(body).get("id"), -32603, REFUSED)


def _member(frame: bytes, name: str, word: bytes | None = None) -> Any:
    """Return a member of a frame, read only when *word* (its name) can be in it; None when there is none."""
    if b"\\u" not in frame and (word or name.encode()) not in frame:
        return None
    return _read(frame).get(name)


def _read(frame: bytes) -> Mapping[str, Any]:
    """Return the members of a frame; raises `CutError` when it can be read in two ways, and so by a client in another."""
    try:
        value = frames.parse_json(frame, max_bytes=frames.MAX_SERVER_BYTES)
    except frames.FrameError as error:
        raise CutError("The server's answer could not be read.") from error
    return value if isinstance(value, dict) else {}
