"""Measures the seconds from the start of `okayed stdio` to its first responses, and the CPU time of its processes.

    python bench/first_answer.py [SERVERS] [ROUNDS]

First the command runs an embedded gateway; then it joins an `okayed run` of the same config. The servers are
tests/fakes/stdio_server.py. Prints the median of the rounds.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

OKAYED = [sys.executable, "-c", "from gateway.cli.main import main; main()"]
CHILD = Path(__file__).parents[1] / "tests" / "fakes" / "stdio_server.py"
OPEN = {
    "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}},
}  # fmt: skip
OPENED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def write_config(folder: Path, servers: int) -> tuple[Path, str]:
    """Write a config with free ports; returns its path and the URL of the gateway."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    agents, inbox = (f"127.0.0.1:{listener.getsockname()[1]}" for listener in sockets)
    for listener in sockets:
        listener.close()
    lines = "\n".join(f"  s{number}: {{command: [{sys.executable}, {CHILD}]}}" for number in range(servers))
    path = folder / "okayed.yaml"
    path.write_text(
        f"listen: {agents}\ninbox: {{listen: '{inbox}'}}\nstore: sqlite:///okayed.db\n"
        f"servers:\n{lines}\npolicy: {{default: allow}}\n"
    )
    path.chmod(0o600)
    return path, f"http://{agents}"


def measure(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds to the responses to initialize and tools/list, and the CPU seconds of all processes."""
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
        process.stdin.close()
        process.wait()
    return *times, _used() - before


def _used() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def print_row(name: str, command: list[str], rounds: int) -> None:
    """Measure one command and print its row."""
    opened, listed, used = (
        statistics.median(column) for column in zip(*(measure(command) for _ in range(rounds)), strict=True)
    )
    print(f"{name:24} initialize {opened:6.2f} s   tools/list {listed:6.2f} s   CPU {used:6.2f} s")


def main(servers: int = 13, rounds: int = 5) -> None:
    """Measure the bare server, the embedded gateway, and joining a gateway."""
    with tempfile.TemporaryDirectory() as folder:
        path, url = write_config(Path(folder), servers)
        print_row("the bare server", [sys.executable, str(CHILD)], rounds)
        print_row(f"embedded, {servers} servers", [*OKAYED, "stdio", "s0", "-c", str(path)], rounds)
        with subprocess.Popen([*OKAYED, "run", "-c", str(path)], stderr=subprocess.DEVNULL) as run:
            try:
                _wait(f"{url}/readyz")
                print_row("joined, with -c", [*OKAYED, "stdio", "s0", "-c", str(path)], rounds)
                if (
                    "--url"
                    in subprocess.run(
                        [*OKAYED, "stdio", "--help"],
                        capture_output=True,
                        text=True,
                        env={**os.environ, "COLUMNS": "200"},
                        check=True,
                    ).stdout
                ):
                    print_row("joined, with --url", [*OKAYED, "stdio", "s0", "--url", url], rounds)
            finally:
                run.terminate()


def _wait(url: str) -> None:
    while True:
        try:
            with urllib.request.urlopen(url) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
