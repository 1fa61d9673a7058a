"""Parses and builds server-sent events for Streamable HTTP (WHATWG HTML, section 9.2)."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from gateway.errors import ResponseTooLargeError

#: Response headers of a stream that proxies must not buffer.
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
#: A stream may begin with a byte order mark, which is not part of its first event.
BOM = b"\xef\xbb\xbf"
#: The longest event accepted, in bytes.
MAX_EVENT = 16 << 20
#: The most resumptions in a row without an event, and the longest delay before a resumption, in seconds.
TRIES = 3
LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `data` is its payload, `raw` its bytes as received, with the empty line that ends it."""

    data: bytes
    raw: bytes

    def field(self, name: bytes) -> str | None:
        """Return the last value of a field such as `id` or `retry`, or None."""
        lines = [line for line in self.raw.splitlines() if line.startswith(name + b":")]
        return lines[-1].partition(b":")[2].strip().decode("utf-8", "replace") if lines else None

    @property
    def kind(self) -> str:
        """The event type, `message` by default."""
        return self.field(b"event") or "message"

    def with_data(self, data: bytes) -> bytes:
        """Return the bytes of the event with other data and the same id, type and retry."""
        lines = [
            line
            for line in self.raw.splitlines(keepends=True)
            if line.strip() and not line.startswith(b"data:")
        ]
        return b"".join(lines) + b"data: " + data + b"\n\n"


@dataclass(slots=True)
class ResumePoint:
    """A position in a server's stream, to resume from (2025-11-25, "Resumability and Redelivery")."""

    id: str | None = None
    #: Seconds to wait before resuming, as the server asks.
    wait: float = 1.0
    _moved: bool = False
    _tries: int = 0

    def advance(self, event: Event) -> None:
        """Move past an event. Ignores an id with NUL and a retry other than ASCII digits (WHATWG HTML, 9.2.6)."""
        self._moved = True
        event_id = event.field(b"id") or ""
        self.id = event_id if event_id and "\0" not in event_id else self.id
        retry = event.field(b"retry") or ""
        if retry.isascii() and retry.isdigit():
            self.wait = min(float(retry) / 1000, LONGEST_WAIT)  # int() refuses thousands of digits

    def retry_delay(self) -> float | None:
        """Return the seconds to wait before resuming a stream that ended; None to give up."""
        self._tries = 0 if self._moved else self._tries + 1
        self._moved = False
        return None if self.id is None or self._tries > TRIES else self.wait


def build_event(data: bytes) -> bytes:
    """Build the event for one JSON-RPC frame."""
    return b"event: message\ndata: " + data + b"\n\n"


def build_priming_event(event_id: str, retry: int) -> bytes:
    """Build the event that primes a client to reconnect: event id, and retry in milliseconds (2025-11-25)."""
    return f"id: {event_id}\nretry: {retry}\ndata: \n\n".encode()


def build_comment(text: str) -> bytes:
    """Build a comment, which keeps a connection open and is ignored by clients."""
    return f": {text}\n\n".encode()


#: Two line ends in a row, the second of which ends an empty line. CRLF is one line end (WHATWG HTML, 9.2.5).
LINE_END_PAIRS = (b"\n\n", b"\n\r", b"\r\r")


class EventSplitter:
    """Splits a stream into blocks, each ending in an empty line; searches each byte once for each pair of line ends."""

    def __init__(self, buffer: bytearray | None = None) -> None:
        self._buffer = bytearray() if buffer is None else buffer
        #: Where the search for each pair continues.
        self._from = dict.fromkeys(LINE_END_PAIRS, 0)

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the blocks that end in *chunk*; raises `ResponseTooLargeError` if the next one exceeds MAX_EVENT."""
        self._buffer += chunk
        start = 0
        while (end := self._end(start)) is not None:
            yield bytes(self._buffer[start:end])
            start = end
        if start:
            del self._buffer[:start]
            self._from = dict.fromkeys(LINE_END_PAIRS, 0)
        if len(self._buffer) > MAX_EVENT:
            raise ResponseTooLargeError

    def _end(self, start: int) -> int | None:
        found = [at for pair in LINE_END_PAIRS if (at := self._next(pair, start)) >= 0]
        if not found:
            return None
        # A CR ends the empty line, and its event, at once: do not wait for a possible LF.
        end = min(found) + 2
        return end + 1 if self._buffer[end - 1 : end + 1] == b"\r\n" else end

    def _next(self, pair: bytes, start: int) -> int:
        at = self._buffer.find(pair, max(self._from[pair], start))
        self._from[pair] = at if at >= 0 else max(start, len(self._buffer) - 1)
        return at


async def split_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Split a stream into its events; comments and empty events have empty data."""
    splitter, bom = EventSplitter(), BOM
    async for chunk in chunks:
        for block in splitter.take(chunk):
            raw, bom = block.removeprefix(bom), b""
            yield Event(_data(raw), raw)
    # The standard discards an incomplete event at the end.


def _data(block: bytes) -> bytes:
    lines = (line for line in block.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
