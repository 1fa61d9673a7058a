"""Starts the processes of a bench, and reads their processor time and memory from the kernel (Linux)."""

import asyncio
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Seconds for a process to start.
START = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")
#: The fields of the first line of /proc/stat that are work: user, nice, system, irq, softirq and steal.
_BUSY = (0, 1, 2, 5, 6, 7)


def free_ports(names: Iterable[str]) -> Mapping[str, int]:
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    for listener in sockets.values():
        listener.close()
    return ports


@contextmanager
def run_process(command: Sequence[str], **options) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the context is open. Its error output goes nowhere, unless *options* say otherwise."""
    process = subprocess.Popen(
        command, **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def wait_for_listener(port: int) -> None:
    async with asyncio.timeout(START):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


def raise_file_limit(wanted: int) -> int:
    """Raise the limit of open files of this process and its later children to *wanted*; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):  # only root may exceed the hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def read_processor_seconds(*pids: int) -> float:
    """Return the user and system time of all threads of these processes: clock_getcpuclockid(3), in nanoseconds."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def read_memory(*pids: int) -> float:
    """Return the resident memory of these processes in KB."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def read_busy_seconds() -> float:
    """Return the seconds that all cores of this machine were busy."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[place]) for place in _BUSY) / _TICKS


@dataclass
class ForeignLoad:
    """The cores that other processes use: the machine's work without that of this process and *pids*."""

    pids: Sequence[int]

    def __post_init__(self) -> None:
        self._start, self._others = time.perf_counter(), self._read()

    def _read(self) -> float:
        return read_busy_seconds() - time.process_time() - read_processor_seconds(*self.pids)

    @property
    def cores(self) -> float:
        """The cores that others used on average since this object was created."""
        return (self._read() - self._others) / (time.perf_counter() - self._start)
