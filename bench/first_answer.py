"""Measures the start of a gateway and of a sidecar that joins it: time to the first answers, and memory.

    python bench/first_answer.py [ROUNDS]

Prints the median of the rounds. The gateway is `okayed run` with one HTTP server, a SQLite store and the inbox. The
memory is read one second after its first answer, when everything that loads late is loaded. A second table has the
embedded gateway with 13 servers on stdio (tests/fakes/stdio_server.py).
"""

import asyncio
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

from processes import ROOT, free_ports, read_processor_seconds, wait_for_listener
from routes import run_server

OKAYED = [sys.executable, "-c", "from gateway.cli.main import main; main()"]
CHILD = ROOT / "tests" / "fakes" / "stdio_server.py"
#: Seconds until the memory is read.
SETTLE = 1.0
OPEN = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
}  # fmt: skip
OPENED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
TEXT = "text"
CALL = {
    "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_thing", "arguments": {"text": TEXT}},
}  # fmt: skip


def write_config(folder: Path, servers: str) -> tuple[Path, int]:
    """Write a config with free ports; returns its path and the agents' port."""
    ports = free_ports(["agents", "inbox"])
    path = folder / "okayed.yaml"
    path.write_text(
        f"listen: 127.0.0.1:{ports['agents']}\ninbox: {{listen: '127.0.0.1:{ports['inbox']}'}}\n"
        "store: sqlite:///okayed.db\n"
        f"servers:\n{servers}\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
    )
    path.chmod(0o600)
    return path, ports["agents"]


def read_rss_and_pss(pid: int) -> tuple[float, float]:
    """Return the RSS and the PSS of a process, in MB."""
    found = dict(
        re.findall(r"^(Rss|Pss): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    )
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def request(port: int, verb: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Do one exchange once the port accepts a connection; returns the status and the body."""
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        while True:
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.001)
        connection.request(verb, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


@contextmanager
def run_gateway(path: Path) -> Iterator[int]:
    """Start `okayed run`; yields its process ID."""
    with subprocess.Popen([*OKAYED, "run", "-c", str(path)], stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def wait_until_ready(port: int) -> None:
    while request(port, "GET", "/readyz")[0] != 200:
        time.sleep(0.001)


def measure_run(path: Path, port: int) -> tuple[float, ...]:
    """Return the seconds to the first answered call and to readiness, then the memory and the processor seconds."""
    start = time.monotonic()
    with run_gateway(path) as pid:
        status, body = request(port, "POST", "/mcp/bench", json.dumps(CALL).encode())
        answered = time.monotonic() - start
        result = json.loads(body).get("result", {})
        if status != 200 or result.get("content") != [{"type": "text", "text": TEXT}]:
            raise SystemExit(f"The call was not allowed: {status} {body!r}")
        wait_until_ready(port)
        ready = time.monotonic() - start
        time.sleep(SETTLE)
        return answered, ready, *read_rss_and_pss(pid), read_processor_seconds(pid)


def measure_stdio(command: list[str]) -> tuple[float, ...]:
    """Return the seconds to the answers to initialize and tools/list, then the memory and the processor seconds."""
    before, start = _used(), time.monotonic()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        times = []
        for number, frames in ((0, [OPEN]), (1, [OPENED, LIST])):
            for frame in frames:
                process.stdin.write(json.dumps(frame).encode() + b"\n")
            process.stdin.flush()
            while (json.loads(process.stdout.readline())).get("id") != number:
                pass
            times.append(time.monotonic() - start)
        memory = read_rss_and_pss(process.pid)
        process.stdin.close()
        process.wait()
    return *times, *memory, _used() - before


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_row(name: str, rows: list[tuple[float, ...]]) -> None:
    """Print the median of each column."""
    first, second, rss, pss, used = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{name:26} {first:8.3f} {second:8.3f} {rss:8.1f} {pss:8.1f} {used:8.3f}", flush=True)


def print_header(first: str, second: str) -> None:
    print(f"{'':26} {first:>8} {second:>8} {'RSS MB':>8} {'PSS MB':>8} {'CPU s':>8}")


def main(rounds: int = 5) -> None:
    """Measure a gateway, the sidecars that join it, and an embedded gateway."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: the modules are compiled
    os.environ["PYTHONPATH"] = str(ROOT)
    with tempfile.TemporaryDirectory() as folder, run_server() as server:
        asyncio.run(wait_for_listener(server.port))
        path, port = write_config(Path(folder), f"  bench: {{url: 'http://127.0.0.1:{server.port}/mcp'}}")
        measure_run(path, port)  # compiles the modules, and creates the store
        print_header("call s", "ready s")
        print_row("okayed run", [measure_run(path, port) for _ in range(rounds)])
        print_header("open s", "list s")
        with run_gateway(path):
            wait_until_ready(port)
            joined = [*OKAYED, "stdio", "bench"]
            print_row("joined, with -c", [measure_stdio([*joined, "-c", str(path)]) for _ in range(rounds)])
            by_url = [*joined, "--url", f"http://127.0.0.1:{port}"]
            print_row("joined, with --url", [measure_stdio(by_url) for _ in range(rounds)])
    with tempfile.TemporaryDirectory() as folder:
        servers = "\n".join(f"  s{number}: {{command: [{sys.executable}, {CHILD}]}}" for number in range(13))
        path, _ = write_config(Path(folder), servers)
        command = [*OKAYED, "stdio", "s0", "-c", str(path)]
        print_row("embedded, 13 servers", [measure_stdio(command) for _ in range(rounds)])
        bare = [sys.executable, str(CHILD)]
        print_row("the server alone", [measure_stdio(bare) for _ in range(rounds)])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
