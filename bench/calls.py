"""Compares allowed calls through the gateway with direct calls, an aiohttp relay and FastMCP; then measures holds.

`python bench/calls.py [--seconds N]`. Server, relays and gateway each run in their own process on this machine; this
process generates the load. Compare ratios, not absolute figures, because all processes share the same cores.
"""

import argparse
import asyncio
import hashlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from aiohttp import web

TOKEN = "bench-token"
HERE = str(Path(__file__).resolve())
ROOT = Path(HERE).parents[1]
FASTMCP_PROXY = [str(ROOT / ".venv-fastmcp" / "bin" / "python"), str(ROOT / "bench" / "fastmcp_proxy.py")]
#: The routes from the load to the server, and their paths.
ROUTES = {"direct": "", "aiohttp relay": "", "FastMCP proxy": "", "okayed": "/bench"}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def call(tool: str, number: int, **meta: int) -> bytes:
    params = {
        "name": tool,
        "arguments": {"number": number, "text": "x" * 200},
        **({"_meta": meta} if meta else {}),
    }
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


#: The server's tools, and its answers to both handshakes.
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("get_thing", "create_thing")]
SERVER = {"capabilities": {"tools": {}}, "serverInfo": {"name": "bench", "version": "1"}}
ANSWERS = {
    "initialize": {"protocolVersion": "2025-11-25", **SERVER},
    "server/discover": {"resultType": "complete", "supportedVersions": ["2026-07-28"], **SERVER},
    "tools/list": {"resultType": "complete", "tools": TOOLS, "ttlMs": 60000, "cacheScope": "public"},
}

# The server and the relay, each in its own process.


async def answer(request: web.Request) -> web.Response:
    """Answer at once as an MCP server; the result of a call is its arrival time."""
    frame = json.loads(await request.read())
    if "id" not in frame:
        return web.Response(status=202)
    called = {"content": [{"type": "text", "text": str(time.monotonic())}]}
    result = ANSWERS.get(frame["method"], {"resultType": "complete", **called})
    return web.json_response({"jsonrpc": "2.0", "id": frame["id"], "result": result})


def relay_to(target: str):
    """Return a handler that forwards each request to *target* and streams the response."""

    async def forward(request: web.Request) -> web.StreamResponse:
        async with request.app["http"].post(target, data=await request.read(), headers=HEADERS) as reply:
            response = web.StreamResponse(
                status=reply.status, headers={"Content-Type": reply.headers["Content-Type"]}
            )
            await response.prepare(request)
            async for chunk in reply.content.iter_any():
                await response.write(chunk)
            return response

    return forward


async def serve(port: int, target: str | None) -> None:
    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/mcp", relay_to(target) if target else answer)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1000)) as http:
        app["http"] = http
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


# Measurements


async def generate_load(url: str, connections: int, seconds: float) -> tuple[float, float, float]:
    """Return the calls per second, and the p50 and p99 of a call in milliseconds."""
    durations: list[float] = []
    end = time.perf_counter() + seconds

    async def caller(http: aiohttp.ClientSession) -> None:
        while (start := time.perf_counter()) < end:
            async with http.post(url, data=call("get_thing", 1), headers=HEADERS) as reply:
                body = await reply.read()
                assert reply.status == 200, body
                assert b'"result"' in body, body
                assert b'"isError"' not in body.replace(b'"isError":false', b""), body
            durations.append(time.perf_counter() - start)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=connections)) as http:
        await asyncio.gather(*(caller(http) for _ in range(connections)))
    cuts = statistics.quantiles(durations, n=100)
    return len(durations) / seconds, cuts[49] * 1000, cuts[98] * 1000


async def measure_holds(agents: str, inbox: str, count: int) -> tuple[float, list[float]]:
    """Hold *count* calls, then approve each; return holds per second, and milliseconds from approval to forwarding."""
    api = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        start = time.perf_counter()
        requests = [
            asyncio.ensure_future(
                http.post(agents, data=call("create_thing", n, progressToken=n), headers=HEADERS)
            )
            for n in range(count)
        ]
        replies = await asyncio.gather(*requests)
        for reply in replies:
            # A call with a progress token gets its first event right after the commit.
            await reply.content.readany()
        rate = count / (time.perf_counter() - start)
        async with http.get(f"{inbox}/api/v1/calls?state=pending&limit=200", headers=api) as listing:
            pending = {call["arguments"]["number"]: call for call in (await listing.json())["calls"]}
        delays = []
        for number, reply in enumerate(replies):
            held = pending[number]
            approved = time.monotonic()
            async with http.post(
                f"{inbox}/api/v1/calls/{held['id']}/approve", json={"digest": held["digest"]}, headers=api
            ) as done:
                assert done.status == 200
            frame = json.loads((await reply.read()).splitlines()[-2].removeprefix(b"data: "))
            delays.append((float(frame["result"]["content"][0]["text"]) - approved) * 1000)
        return rate, delays


def start_process(stack: ExitStack, *command: str) -> None:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


async def wait_for_listener(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


def write_config(folder: Path, server: int, agents: int, inbox: int) -> Path:
    file = folder / "okayed.yaml"
    file.write_text(
        f"listen: 127.0.0.1:{agents}\nstore: sqlite:///{folder}/bench.db\nservers: {{bench: {{url: 'http://127.0.0.1:{server}/mcp'}}}}\n"
        f"approvers: [{{name: bench, token_sha256: {hashlib.sha256(TOKEN.encode()).hexdigest()}}}]\n"
        "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
        f"inbox: {{listen: '127.0.0.1:{inbox}'}}\n"
    )
    file.chmod(0o600)
    return file


async def measure(seconds: float, ports: Mapping[str, int]) -> None:
    for port in ports.values():
        await wait_for_listener(port)
    routes = {name: f"http://127.0.0.1:{ports[name]}/mcp{path}" for name, path in ROUTES.items()}
    print(
        f"{'':14} {'connections':>11} {'calls/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'added p50':>10} {'added p99':>10}"
    )
    for connections in (1, 32):
        rows = {name: await generate_load(url, connections, seconds) for name, url in routes.items()}
        base = rows["direct"]
        for name, (rate, p50, p99) in rows.items():
            print(
                f"{name:14} {connections:>11} {rate:>9.0f} {p50:>8.2f} {p99:>8.2f} {p50 - base[1]:>10.2f} {p99 - base[2]:>10.2f}"
            )
        okayed_rate = rows["okayed"][0]
        ratios = (f"okayed/{name} {okayed_rate / rows[name][0]:.2f}" for name in ROUTES if name != "okayed")
        print(f"{'':14} {', '.join(ratios)}")
    rate, delays = await measure_holds(routes["okayed"], f"http://127.0.0.1:{ports['inbox']}", 90)
    print(f"holds          {rate:.0f}/s (90 at once)")
    print(f"approve to forwarded  p50 {statistics.median(delays):.2f} ms, max {max(delays):.2f} ms")


def free_ports(names: Iterable[str]) -> Mapping[str, int]:
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
    ports = {name: listener.getsockname()[1] for name, listener in sockets.items()}
    for listener in sockets.values():
        listener.close()
    return ports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve, options.target))
        return
    ports = free_ports([*ROUTES, "inbox"])
    target = f"http://127.0.0.1:{ports['direct']}/mcp"
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = write_config(Path(folder), ports["direct"], ports["okayed"], ports["inbox"])
        start_process(stack, sys.executable, HERE, "--serve", str(ports["direct"]))
        start_process(stack, sys.executable, HERE, "--serve", str(ports["aiohttp relay"]), "--target", target)
        start_process(stack, *FASTMCP_PROXY, target, str(ports["FastMCP proxy"]))
        start_process(stack, str(Path(sys.executable).parent / "okayed"), "run", "-c", str(file))
        asyncio.run(measure(options.seconds, ports))


if __name__ == "__main__":
    main()
