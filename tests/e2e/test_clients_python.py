"""Real Python clients, each through a running gateway: the result of a held call."""

import asyncio
import sys

import pytest
import pytest_asyncio

from client_cases import parametrize_cases
from hang import HANG
from real_clients import ClientScript, open_testbed
from third_party import program

CLIENTS = {
    "sdk-2-auto": ClientScript(sys.executable, "sdk2.py", "auto"),
    "sdk-2-legacy": ClientScript(sys.executable, "sdk2.py", "legacy"),
    "sdk-2-2026": ClientScript(sys.executable, "sdk2.py", "2026-07-28"),
    "sdk-2-session": ClientScript(sys.executable, "sdk2.py", "session"),
    "sdk-1": ClientScript(program("mcp1"), "sdk1.py", "session"),
    "langchain": ClientScript(program("mcp1"), "sdk1.py", "langchain"),
    "fastmcp": ClientScript(program("fastmcp"), "fastmcp_client.py", "auto"),
}
WAYS = [(client, transport) for client in CLIENTS for transport in ("http", "stdio")]
#: Built on SDK 1.x, which sends no cancellation when a call times out.
SILENT = tuple(way for way in WAYS if way[0] in {"sdk-1", "langchain"})

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory):
    async with open_testbed(tmp_path_factory.mktemp("scene")) as ready:
        yield ready


@pytest.mark.parametrize(("client", "transport", "case"), parametrize_cases(WAYS, silent=SILENT))
async def test_a_python_client_handles(testbed, client, transport, case):
    async with asyncio.timeout(HANG):
        await case(testbed, CLIENTS[client], transport)
