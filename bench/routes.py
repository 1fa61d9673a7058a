"""The routes from the load to the server: direct, nginx, a bare aiohttp relay, FastMCP's proxy, Okayed."""

import asyncio
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen

from http_client import WrongResponse, connect
from load import HANDSHAKE, Call, build_call
from okayed_config import agent_token, run_okayed, write_config
from processes import ROOT, START, free_ports, run_process

BENCH = ROOT / "bench"
AGENTS = 4
#: The bytes of a call's text. The calls of a load differ in length, as those of real agents do.
LENGTHS = range(180, 244)
FASTMCP = ROOT / ".venv-fastmcp" / "bin" / "python"
#: Debian's folder for nginx is not on every PATH.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")
#: One process, kept connections to the server, and bodies in memory.
NGINX_CONFIG = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 100000000;
  client_body_buffer_size 1m;
  client_max_body_size 4m;
  upstream server {{ server 127.0.0.1:{server}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://server;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffer_size 16k;
      proxy_buffers 16 16k;
    }}
  }}
}}
"""
#: Runs a route, given its folder, the server's port and its own port.
Run = Callable[[Path, int, int], AbstractContextManager[Popen[bytes]]]


@dataclass(frozen=True)
class Route:
    """A running route: its port, its process, and the seconds from its start to the first right answer."""

    name: str
    port: int
    pid: int
    path: str = "/mcp"
    tokens: Sequence[str] = ("",)
    start: float = 0.0

    def build_calls(self, lengths: Sequence[int] = LENGTHS, revision: str = HANDSHAKE) -> Sequence[Call]:
        """Return a call of each agent for each length, with ids from 1."""
        kinds = ((length, token) for length in lengths for token in self.tokens)
        return [
            build_call(self.path, "get_thing", number, "x" * length, token=token, revision=revision)
            for number, (length, token) in enumerate(kinds, 1)
        ]


def run_nginx(folder: Path, server: int, port: int) -> AbstractContextManager[Popen[bytes]]:
    file = folder / "nginx.conf"
    file.write_text(NGINX_CONFIG.format(folder=folder, server=server, port=port))
    return run_process([NGINX, "-c", str(file), "-e", str(folder / "error.log")])


def run_script(
    command: Sequence[str], _folder: Path, server: int, port: int
) -> AbstractContextManager[Popen[bytes]]:
    return run_process([*command, f"http://127.0.0.1:{server}/mcp", str(port)])


def run_gateway(tree: Path, folder: Path, server: int, port: int) -> AbstractContextManager[Popen[bytes]]:
    [inbox] = free_ports(["inbox"]).values()
    return run_okayed(write_config(folder, server=server, agents=port, inbox=inbox, count=AGENTS), tree)


RELAY, OKAYED = "aiohttp relay", "Okayed"


def list_routes(tree: Path = ROOT) -> Mapping[str, Run]:
    """Return the routes whose programs are installed; Okayed is that of the checkout *tree*."""
    return {
        **({"nginx": run_nginx} if NGINX else {}),
        RELAY: partial(run_script, [sys.executable, str(BENCH / "aiohttp_relay.py")]),
        **(
            {"FastMCP's proxy": partial(run_script, [FASTMCP, BENCH / "fastmcp_proxy.py"])}
            if FASTMCP.exists()
            else {}
        ),
        OKAYED: partial(run_gateway, tree),
    }


@contextmanager
def run_server(*, sse: bool = False) -> Iterator[Route]:
    """Run the server of the bench, which is the direct route."""
    [port] = free_ports(["server"]).values()
    command = [sys.executable, str(BENCH / "server.py"), str(port), *(["--sse"] if sse else [])]
    with run_process(command) as process:
        yield Route("direct", port, process.pid)


@asynccontextmanager
async def run_route(name: str, run: Run, folder: Path, server: int) -> AsyncIterator[Route]:
    """Run a route in a folder; it has answered a call."""
    [port] = free_ports([name]).values()
    path, tokens = (
        ("/mcp/bench", [agent_token(one) for one in range(AGENTS)]) if name == OKAYED else ("/mcp", [""])
    )
    place = folder / name.partition("'")[0].replace(" ", "-")
    place.mkdir()
    start = time.perf_counter()
    with run(place, server, port) as process:
        [call, *_] = Route(name, port, process.pid, path, tokens).build_calls()
        await wait_for_answer(port, call)
        yield Route(name, port, process.pid, path, tokens, time.perf_counter() - start)


async def wait_for_answer(port: int, call: Call) -> None:
    """Repeat a call until its answer is right."""
    async with asyncio.timeout(START):
        while not await answers(port, call):
            await asyncio.sleep(0.002)


async def answers(port: int, call: Call) -> bool:
    try:
        client = await connect(port)
    except OSError:
        return False
    try:
        call.check(await client.ask(call.request))
    except WrongResponse:
        return False
    finally:
        client.close()
    return True
