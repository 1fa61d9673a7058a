"""One MCP server as a child process: frames on stdin and stdout, stderr to the log."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from approvals.safetext import one_line
from gateway.errors import NotSentError
from gateway.upstreams.multiplex import MultiplexedConnection, PendingRequest

#: The longest line read from a child, in bytes.
MAX_LINE = 16 << 20
#: The most bytes buffered for a child that does not read its stdin.
MAX_UNREAD = 16 << 20
#: Seconds between closing stdin, SIGTERM and SIGKILL.
STOP_TIMEOUT = 2.0
#: Seconds to wait for the end of a server's stderr, and the most characters of its last line that are kept.
STDERR_TIMEOUT = 0.5
MAX_STDERR_LINE = 300

log = logging.getLogger("okayed.servers")


class Child(MultiplexedConnection):
    """A running server process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        super().__init__(name)
        self.process = process
        self._last_line = ""
        self._log_ended = asyncio.Event()

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], env: Mapping[str, str], cwd: str | None
    ) -> "Child":
        """Start *command* with a clean environment; raises `NotSentError` if it cannot start."""
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
        if process.stdout is not None and process.stderr is not None:
            child._spawn(child._read_log(process.stderr))
            child._spawn(child._read_frames(process.stdout))
        return child

    def _request(self, frame: bytes, _pending: PendingRequest, /) -> None:
        self._write(frame)

    async def _notify(self, frame: bytes) -> None:
        self._write(frame)

    def cancel(self, request: PendingRequest) -> None:
        """Forget a request, and send notifications/cancelled unless the server has answered."""
        is_pending = request.number in self.pending
        self.forget(request)
        if is_pending:
            params = {"requestId": request.number}
            frame = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}
            with suppress(NotSentError):
                self._write(msgspec.json.encode(frame))

    def _write(self, frame: bytes) -> None:
        stdin = self.process.stdin
        # A write to a pipe without a reader fails or is lost before the end of stdout shows it.
        if self.ended.is_set() or stdin is None or stdin.is_closing():
            raise NotSentError(f"The server {self.name} has ended.")
        if stdin.transport.get_write_buffer_size() > MAX_UNREAD:
            raise NotSentError(f"The server {self.name} does not read its stdin.")
        stdin.write(frame.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")

    async def _read_frames(self, stdout: asyncio.StreamReader) -> None:
        try:
            while line := await stdout.readline():
                self._handle_frame(line.strip())
        except ValueError:
            log.warning(
                "%s: a line on stdout is longer than %d bytes; killing the server", self.name, MAX_LINE
            )
            self._signal(signal.SIGKILL)
        finally:
            self._mark_ended()

    async def _read_log(self, stderr: asyncio.StreamReader) -> None:
        while chunk := await stderr.read(1 << 16):
            for line in chunk.decode("utf-8", "replace").splitlines():
                log.info("%s: %s", self.name, line)
                self._last_line = one_line(line, MAX_STDERR_LINE) or self._last_line
        self._log_ended.set()

    async def last_log_line(self) -> str:
        """Return the last line of stderr. Waits only briefly for its end: a grandchild process may keep it open."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._log_ended.wait(), STDERR_TIMEOUT)
        return self._last_line

    async def stop(self) -> None:
        """End the process group: close stdin, then SIGTERM, then SIGKILL, `STOP_TIMEOUT` apart."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT)
                break
            self._signal(number)
        await self.process.wait()
        self._signal(signal.SIGKILL)  # processes that the server started and left in its process group
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return a child's whole environment: our PATH and HOME, and the variables in its config."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | dict(env)
