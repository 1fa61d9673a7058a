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
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OKAYED = [sys.executable, "-c", "from gateway.cli.main import main; main()"]
CHILD = ROOT / "tests" / "fakes" / "stdio_server.py"
#: Seconds until the memory is read.
SETTLE = 1.0
OPEN = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
}  # fmt: skip
OPENED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
CALL = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_thing", "arguments": {}}}
#: The server's answers, by method.
RESULTS: Mapping[str, object] = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "get_thing", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": []},
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one connection as an MCP server."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        size = re.search(rb"(?i)content-length: *(\d+)", head)
        body = await reader.readexactly(int(size[1])) if size else b"{}"
        frame = json.loads(body)
        status, answer = b"202 Accepted", b""
        if "id" in frame:
            result = RESULTS.get(frame["method"], {})
            status = b"200 OK"
            answer = json.dumps({"jsonrpc": "2.0", "id": frame["id"], "result": result}).encode()
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (status, len(answer)) + answer)


def start_server() -> int:
    """Serve in a thread; returns the port."""
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    loop.run_until_complete(asyncio.start_server(accept, sock=listener))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return listener.getsockname()[1]


def write_config(folder: Path, servers: str) -> tuple[Path, int]:
    """Write a config with free ports; returns its path and the agents' port."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    agents, inbox = (listener.getsockname()[1] for listener in sockets)
    for listener in sockets:
        listener.close()
    path = folder / "okayed.yaml"
    path.write_text(
        f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\nstore: sqlite:///okayed.db\n"
        f"servers:\n{servers}\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
    )
    path.chmod(0o600)
    return path, agents


def read_memory(pid: int) -> tuple[float, float]:
    """Return the RSS and the PSS of a process, in MB."""
    found = dict(
        re.findall(r"^(Rss|Pss): +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    )
    return int(found["Rss"]) / 1024, int(found["Pss"]) / 1024


def read_cpu(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
        if status != 200 or json.loads(body).get("result") != RESULTS["tools/call"]:
            raise SystemExit(f"The call was not allowed: {status} {body!r}")
        wait_until_ready(port)
        ready = time.monotonic() - start
        time.sleep(SETTLE)
        return answered, ready, *read_memory(pid), read_cpu(pid)


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
        memory = read_memory(process.pid)
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
    with tempfile.TemporaryDirectory() as folder:
        path, port = write_config(Path(folder), f"  bench: {{url: 'http://127.0.0.1:{start_server()}/mcp'}}")
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
