"""The load generator: tools/call requests built in advance, over kept connections, with each answer checked.

A call costs this process about 10 us. The latency of a call is from the write to the complete, checked answer.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from http_client import Connection, Response, WrongResponse, build_request
from server import build_call_result, build_event

HANDSHAKE, MODERN = "2025-11-25", "2026-07-28"
META = "io.modelcontextprotocol"
#: Seconds until a run has failed.
TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and the response frame that the server of the bench gives to it."""

    request: bytes
    id: int
    text: str
    frame: bytes
    event: bytes

    def check(self, response: Response) -> None:
        """Raise `WrongResponse` unless the response has the status, the id and the result of this call."""
        if response.status != 200 or not (
            response.body in (self.frame, self.event) or self._fits(response.body)
        ):
            raise WrongResponse(f"call {self.id}: HTTP {response.status} {response.body[:300]!r}")

    def _fits(self, body: bytes) -> bool:
        """Whether a body that has other bytes than the server's means the same."""
        try:
            frame = read_last_frame(body)
            result = frame["result"]
            return (
                frame["id"] == self.id
                and not result.get("isError")
                and result["content"][0]["text"] == self.text
            )
        except (ValueError, LookupError, TypeError, AttributeError):
            return False


def read_last_frame(body: bytes) -> dict:
    """Return the frame of a JSON response, or the last frame of an event stream; raises `ValueError`."""
    if body.lstrip()[:1] == b"{":
        return json.loads(body)
    lines = [line for line in body.splitlines() if line.startswith(b"data:") and line[5:].strip()]
    return json.loads(lines[-1].removeprefix(b"data:")) if lines else {}


def build_call(
    path: str,
    tool: str,
    number: int,
    text: str,
    *,
    token: str = "",
    revision: str = HANDSHAKE,
    progress: bool = False,
) -> Call:
    """Return a call of *tool* whose request id is *number*."""
    meta = {"progressToken": number} if progress else {}
    headers = ["Accept: application/json, text/event-stream", f"MCP-Protocol-Version: {revision}"]
    if revision == MODERN:
        client = {
            "protocolVersion": revision,
            "clientInfo": {"name": "bench", "version": "1"},
            "clientCapabilities": {},
        }
        meta |= {f"{META}/{name}": value for name, value in client.items()}
        headers += ["Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
    if token:
        headers.append(f"Authorization: Bearer {token}")
    params = {
        "name": tool,
        "arguments": {"number": number, "text": text},
        **({"_meta": meta} if meta else {}),
    }
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()
    frame = build_call_result(b"%d" % number, json.dumps(text).encode())
    return Call(build_request("POST", path, *headers, body=body), number, text, frame, build_event(frame))


@dataclass(frozen=True, slots=True)
class Measured:
    """The calls of one run: seconds in total, and milliseconds of each call in ascending order."""

    seconds: float
    took: Sequence[float]

    @property
    def rate(self) -> float:
        """Calls per second."""
        return len(self.took) / self.seconds

    @property
    def p50(self) -> float:
        return statistics.median(self.took)

    @property
    def p99(self) -> float:
        return self.took[min(len(self.took) - 1, len(self.took) * 99 // 100)]


class Caller(Connection):
    """One connection of the load: sends the next call as soon as the answer to the last one has arrived."""

    def __init__(self, load: "Load") -> None:
        super().__init__()
        self._load = load
        self._call: Call | None = None

    def next(self) -> None:
        if (call := self._load.take()) is not None:
            self._call = call
            self._sent = time.perf_counter()
            self.send(call.request)

    def response_received(self, response: Response) -> None:
        took = time.perf_counter() - self._sent
        call, self._call = self._call, None
        try:
            if call is None:
                raise WrongResponse(f"a response without a request: {response}")
            call.check(response)
        except WrongResponse as error:
            self._load.fail(error)
            return
        self.next()  # first, so that the gateway works while this process counts
        self._load.count(took)

    def connection_lost(self, error: Exception | None) -> None:
        if self._call is not None:
            self._load.fail(WrongResponse(f"call {self._call.id}: the connection was closed: {error}"))


class Load:
    """Open connections, and the calls that they send in turn."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = itertools.cycle(calls)
        self.callers: list[Caller] = []

    async def run(self, count: int = sys.maxsize, seconds: float = TIMEOUT) -> Measured:
        """Make *count* calls, or calls for *seconds*, over all connections; raises `WrongResponse` for a wrong answer."""
        self._left, self._open, self._took = count, 0, []
        self._done = asyncio.get_running_loop().create_future()
        start = time.perf_counter()
        self._end = start + seconds
        for caller in self.callers:
            caller.next()
        async with asyncio.timeout(seconds + TIMEOUT):
            await self._done
        return Measured(time.perf_counter() - start, sorted(self._took))

    def take(self) -> Call | None:
        """Return the next call of this run; None after the last."""
        if not self._left or time.perf_counter() >= self._end:
            return None
        self._left -= 1
        self._open += 1
        return next(self._calls)

    def count(self, took: float) -> None:
        """Note a right answer; the run is done when no call is left and none is open."""
        self._took.append(took * 1000)
        self._open -= 1
        if not self._open and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: WrongResponse) -> None:
        if not self._done.done():
            self._done.set_exception(error)


@asynccontextmanager
async def open_load(port: int, connections: int, calls: Sequence[Call]) -> AsyncIterator[Load]:
    """Open the connections of a load on 127.0.0.1."""
    load, loop = Load(calls), asyncio.get_running_loop()
    try:
        for _ in range(connections):
            _, caller = await loop.create_connection(lambda: Caller(load), "127.0.0.1", port)
            load.callers.append(caller)
        yield load
    finally:
        for caller in load.callers:
            caller.close()
