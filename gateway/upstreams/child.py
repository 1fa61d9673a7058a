"""One MCP server as a child process: frames out on its stdin, frames in from its stdout, routed to who waits.

Requests get an id and a progress token of our own on the way out and their client's own on the way back, so clients
that use one id for everything, or share one child, never receive each other's answers.
"""

import asyncio
import logging
import os
import signal
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from itertools import count

import msgspec

from gateway.errors import CutError, NotSentError

#: The longest line read from a child, in bytes.
MAX_LINE = 16 << 20
#: Bytes that may wait for a child to read them.
MAX_UNREAD = 16 << 20
#: Server messages kept while no stream is open to send them on.
MAX_UNSENT = 256
#: Seconds between closing stdin, SIGTERM and SIGKILL.
PATIENCE = 2.0

PROGRESS_TOKEN = "progressToken"  # noqa: S105  (a member's name, not a secret)
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

Raw = msgspec.Raw
Members = dict[str, Raw]
_members = msgspec.json.Decoder(Members)
_encode = msgspec.json.encode
log = logging.getLogger("holdpoint.servers")


class Exchange:
    """One request that a child is answering: the frames that belong to it, in order, the response last."""

    def __init__(self, number: int, frame: Members) -> None:
        self.number = number
        self.client_id = frame["id"]
        self.token = _meta(frame).get(PROGRESS_TOKEN)
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def next(self, seconds: float | None = None) -> bytes | None:
        """Return the next frame, or None when none comes within *seconds*; `CutError` when the child ends first."""
        try:
            async with asyncio.timeout(seconds):
                frame = await self.frames.get()
        except TimeoutError:
            return None
        if frame is None:
            raise CutError("The server ended before it answered.")
        return frame

    async def answer(self) -> bytes:
        """Return the response, passing over what comes before it."""
        while True:
            frame = await self.next()
            if frame is not None and is_response(frame):
                return frame


class Child:
    """A running server process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.exchanges: dict[int, Exchange] = {}
        self.unsent: deque[bytes] = deque(maxlen=MAX_UNSENT)
        self.unsent_came = asyncio.Event()
        self.ended = asyncio.Event()
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], env: Mapping[str, str], cwd: str | None
    ) -> "Child":
        """Start *command* with a clean environment; raises `NotSentError` when it cannot be started."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command, env=clean_environment(env), cwd=cwd, start_new_session=True, limit=MAX_LINE,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            raise NotSentError(
                f"The server {name} could not be started: {command[0]}: {error.strerror}."
            ) from error
        child = cls(name, process)
        child._keep(child._read_frames())
        child._keep(child._read_log())
        return child

    def _keep(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def ask(self, body: bytes) -> Exchange:
        """Send a request and return its exchange."""
        frame = _members.decode(body)
        exchange = Exchange(next(self._numbers), frame)
        self.exchanges[exchange.number] = exchange
        self._write(_renumbered(frame, exchange))
        return exchange

    def tell(self, body: bytes) -> None:
        """Send a notification, or the client's answer to a request of the server's."""
        frame = _members.decode(body)
        if _value(frame.get("method")) == "notifications/cancelled":
            self._tell_cancelled(frame)
        else:
            self._write(body)

    def _tell_cancelled(self, frame: Members) -> None:
        params = _members.decode(frame.get("params", Raw(b"{}")))
        wanted = _value(params.get("requestId"))
        named = [exchange for exchange in self.exchanges.values() if _value(exchange.client_id) == wanted]
        if named:
            self._write(_encode(frame | {"params": params | {"requestId": named[-1].number}}))

    def leave(self, exchange: Exchange, *, cancel: bool) -> None:
        """Let go of an exchange; with *cancel* the server is told that nobody waits for its answer any more."""
        if self.exchanges.pop(exchange.number, None) is not None and cancel and not self.ended.is_set():
            params = {"requestId": exchange.number}
            self._write(_encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))

    def _write(self, frame: bytes) -> None:
        if self.ended.is_set() or self.process.stdin is None:
            raise NotSentError(f"The server {self.name} has ended.")
        if self.process.stdin.transport.get_write_buffer_size() > MAX_UNREAD:
            raise NotSentError(f"The server {self.name} does not read what it is sent.")
        self.process.stdin.write(frame.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")

    async def _read_frames(self) -> None:
        assert self.process.stdout is not None  # noqa: S101  (it was opened as a pipe)
        try:
            while line := await self.process.stdout.readline():
                self._take(line.strip())
        except ValueError:
            log.warning(
                "%s: a line on stdout is longer than %d bytes; the server is stopped", self.name, MAX_LINE
            )
            self._signal(signal.SIGKILL)
        finally:
            self.ended.set()
            self.unsent_came.set()
            for exchange in self.exchanges.values():
                exchange.frames.put_nowait(None)

    async def _read_log(self) -> None:
        assert self.process.stderr is not None  # noqa: S101  (it was opened as a pipe)
        while chunk := await self.process.stderr.read(1 << 16):
            for line in chunk.decode("utf-8", "replace").splitlines():
                log.info("%s: %s", self.name, line)

    def _take(self, line: bytes) -> None:
        try:
            frame = _members.decode(line)
        except msgspec.MsgspecError:
            log.warning("%s: a line on stdout is no JSON-RPC frame and was dropped", self.name)
            return
        if _answers(frame):
            self._answer(frame)
        elif (exchange := self._whose(frame)) is not None:
            exchange.frames.put_nowait(_encode(frame))
        else:
            self.unsent.append(_encode(frame))
            self.unsent_came.set()

    def _answer(self, frame: Members) -> None:
        exchange = self.exchanges.pop(_number(frame["id"]), None)
        if exchange is None:
            log.info("%s: an answer that nobody waits for was dropped", self.name)
            return
        exchange.frames.put_nowait(_encode(_resubscribed(frame | {"id": exchange.client_id}, exchange)))

    def _whose(self, frame: Members) -> Exchange | None:
        """Find the exchange that a message of the server belongs to; put the client's own values back into it."""
        params = _members.decode(frame.get("params", Raw(b"{}")))
        if (token := params.get(PROGRESS_TOKEN)) is not None and (
            found := self.exchanges.get(_number(token))
        ):
            frame["params"] = Raw(_encode(params | {PROGRESS_TOKEN: found.token}))
            return found
        meta = _members.decode(params.get("_meta", Raw(b"{}")))
        if (mark := meta.get(SUBSCRIPTION)) is not None and (found := self.exchanges.get(_number(mark))):
            frame["params"] = Raw(_encode(params | {"_meta": meta | {SUBSCRIPTION: found.client_id}}))
            return found
        return next(iter(self.exchanges.values())) if len(self.exchanges) == 1 else None

    async def stop(self) -> None:
        """End the process: close its stdin, then SIGTERM, then SIGKILL, each after a while; nothing is left behind."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), PATIENCE)
                break
            self._signal(number)
        await self.process.wait()
        self._signal(signal.SIGKILL)  # whatever the server itself started and left in its process group
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the only environment a child gets: PATH and HOME of ours, and what its config names."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | dict(env)


def is_response(frame: bytes) -> bool:
    """Say whether a frame of a server answers a request."""
    return _answers(_members.decode(frame))


def _answers(frame: Members) -> bool:
    return "method" not in frame and "id" in frame


def _value(raw: Raw | None) -> object:
    return None if raw is None else msgspec.json.decode(raw)


def _number(raw: Raw) -> int:
    value = _value(raw)
    return value if isinstance(value, int) else -1


def _meta(frame: Members) -> Members:
    params = _members.decode(frame.get("params", Raw(b"{}")))
    return _members.decode(params.get("_meta", Raw(b"{}")))


def _renumbered(frame: Members, exchange: Exchange) -> bytes:
    """Return the frame with our id, and our progress token where the client gave one; the rest as it came."""
    ours: dict[str, object] = {**frame, "id": exchange.number}
    if exchange.token is not None:
        params = _members.decode(frame["params"])
        ours["params"] = params | {"_meta": _meta(frame) | {PROGRESS_TOKEN: exchange.number}}
    return _encode(ours)


def _resubscribed(frame: Members, exchange: Exchange) -> Members:
    """Put the client's own id back where the last frame of a subscription names it."""
    if SUBSCRIPTION.encode() not in bytes(frame.get("result", Raw(b""))):
        return frame
    result = _members.decode(frame["result"])
    meta = _members.decode(result.get("_meta", Raw(b"{}")))
    return frame | {"result": Raw(_encode(result | {"_meta": meta | {SUBSCRIPTION: exchange.client_id}}))}
