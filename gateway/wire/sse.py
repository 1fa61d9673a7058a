"""Server-sent events, as Streamable HTTP uses them (WHATWG HTML, section 9.2): events to bytes and back."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from gateway.errors import ResponseTooLargeError

#: Headers of a stream that proxies in between must not buffer.
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}
#: A stream may begin with one, which is no part of its first event.
BOM = b"\xef\xbb\xbf"
#: The longest event that is read, in bytes.
MAX_EVENT = 16 << 20
#: How often in a row a stream is taken up again without a single event coming, and the longest wait before, in seconds.
TRIES = 3
LONGEST_WAIT = 30.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `data` is its payload, `raw` its bytes as they came, ending in an empty line."""

    data: bytes
    raw: bytes

    def field(self, name: bytes) -> str | None:
        """Return the last field of this name, such as `id` or `retry`, or None."""
        lines = [line for line in self.raw.splitlines() if line.startswith(name + b":")]
        return lines[-1].partition(b":")[2].strip().decode("utf-8", "replace") if lines else None

    @property
    def kind(self) -> str:
        """Its type: `message` where it names none."""
        return self.field(b"event") or "message"

    def with_data(self, data: bytes) -> bytes:
        """Return the event with other data; its id, type and retry stay."""
        lines = [
            line
            for line in self.raw.splitlines(keepends=True)
            if line.strip() and not line.startswith(b"data:")
        ]
        return b"".join(lines) + b"data: " + data + b"\n\n"


@dataclass(slots=True)
class ResumePoint:
    """Where in a server's stream a reader is, and whether it can ask for the rest of it (MCP 2025-11-25, resumability)."""

    id: str | None = None
    #: Seconds after which the server wants to be asked.
    wait: float = 1.0
    _moved: bool = False
    _tries: int = 0

    def advance(self, event: Event) -> None:
        """Note an event. An id with NUL, and a retry that is not all ASCII digits, do not count (WHATWG HTML, 9.2.6)."""
        self._moved = True
        given = event.field(b"id") or ""
        self.id = given if given and "\0" not in given else self.id
        retry = event.field(b"retry") or ""
        if retry.isascii() and retry.isdigit():
            self.wait = min(float(retry) / 1000, LONGEST_WAIT)  # int() refuses thousands of digits

    def retry_delay(self) -> float | None:
        """Return after how many seconds to ask for the rest of a stream that ended, or None when that is no use."""
        self._tries = 0 if self._moved else self._tries + 1
        self._moved = False
        return None if self.id is None or self._tries > TRIES else self.wait


def event(data: bytes) -> bytes:
    """Return the event that carries one JSON-RPC frame."""
    return b"event: message\ndata: " + data + b"\n\n"


def priming_event(event_id: str, retry: int) -> bytes:
    """Return the event that gives a client the id to resume by, and after how many milliseconds (MCP 2025-11-25)."""
    return f"id: {event_id}\nretry: {retry}\ndata: \n\n".encode()


def comment(text: str) -> bytes:
    """Return a comment: bytes that keep a connection alive and mean nothing."""
    return f": {text}\n\n".encode()


#: Two line ends in a row: the second one ends an empty line. CRLF is one line end (WHATWG HTML, 9.2.5).
LINE_END_PAIRS = (b"\n\n", b"\n\r", b"\r\r")


class EventSplitter:
    """Cuts a stream into blocks, each with the empty line that ends it. No byte is searched twice for a mark."""

    def __init__(self, buffer: bytearray | None = None) -> None:
        self._buffer = bytearray() if buffer is None else buffer
        #: Where to look for each mark next; it does not begin before.
        self._from = dict.fromkeys(LINE_END_PAIRS, 0)

    def take(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the blocks that end in *chunk*; raises `TooLongError` when the next one is too long."""
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
        found = [at for mark in LINE_END_PAIRS if (at := self._next(mark, start)) >= 0]
        if not found:
            return None
        # An empty line that ends in CR ends its event at once; an LF may follow, but is not waited for.
        end = min(found) + 2
        return end + 1 if self._buffer[end - 1 : end + 1] == b"\r\n" else end

    def _next(self, mark: bytes, start: int) -> int:
        at = self._buffer.find(mark, max(self._from[mark], start))
        self._from[mark] = at if at >= 0 else max(start, len(self._buffer) - 1)
        return at


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Split a stream into its events; comments and empty events come through with empty data."""
    splitter, mark = EventSplitter(), BOM
    async for chunk in chunks:
        for block in splitter.take(chunk):
            raw, mark = block.removeprefix(mark), b""
            yield Event(_data(raw), raw)
    # What follows the last empty line is no event: the standard discards it.


def _data(block: bytes) -> bytes:
    lines = (line for line in block.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
