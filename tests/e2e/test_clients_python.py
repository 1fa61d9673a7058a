"""Real Python clients, each through a running gateway: the result of a held call."""

import asyncio
import sys

import pytest
import pytest_asyncio

from client_cases import table
from hang import HANG
from real_clients import Client, a_scene
from third_party import program

CLIENTS = {
    "sdk-2-auto": Client(sys.executable, "sdk2.py", "auto"),
    "sdk-2-legacy": Client(sys.executable, "sdk2.py", "legacy"),
    "sdk-2-2026": Client(sys.executable, "sdk2.py", "2026-07-28"),
    "sdk-2-session": Client(sys.executable, "sdk2.py", "session"),
    "sdk-1": Client(program("mcp1"), "sdk1.py", "session"),
    "langchain": Client(program("mcp1"), "sdk1.py", "langchain"),
    "fastmcp": Client(program("fastmcp"), "fastmcp_client.py", "auto"),
}
WAYS = [(client, transport) for client in CLIENTS for transport in ("http", "stdio")]
#: Built on SDK 1.x, which sends no cancellation when a call times out.
SILENT = tuple(way for way in WAYS if way[0] in {"sdk-1", "langchain"})

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory):
    async with a_scene(tmp_path_factory.mktemp("scene")) as ready:
        yield ready


@pytest.mark.parametrize(("client", "transport", "case"), table(WAYS, silent=SILENT))
async def test_a_python_client_handles(scene, client, transport, case):
    async with asyncio.timeout(HANG):
        await case(scene, CLIENTS[client], transport)
