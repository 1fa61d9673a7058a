"""Real Node clients, each through a running gateway: the result of a held call."""

import asyncio

import pytest
import pytest_asyncio

from client_cases import parametrize_cases
from hang import HANG
from npm import NODE
from real_clients import ClientScript, open_testbed

CLIENTS = {
    "sdk-1": ClientScript(NODE, "ts_sdk1.mjs", ""),
    "sdk-2-auto": ClientScript(NODE, "ts_sdk2.mjs", "auto"),
    "inspector-legacy": ClientScript(NODE, "inspector.mjs", "legacy"),
    "inspector-modern": ClientScript(NODE, "inspector.mjs", "modern"),
}
WAYS = [
    *((client, transport) for client in CLIENTS for transport in ("http", "stdio")),
    # A bridge for clients that only launch commands, in both eras.
    ("sdk-1", "mcp-remote"),
    ("sdk-2-auto", "mcp-remote"),
]
#: The only client that supports tasks, and only in the modern era.
TASKS = (("inspector-modern", "http"), ("inspector-modern", "stdio"))
#: Its command line has a fixed timeout of 60 s.
UNTIMED = (*TASKS, ("inspector-legacy", "http"), ("inspector-legacy", "stdio"))
#: In the modern era the bridge neither forwards a cancellation nor disconnects.
SILENT = (("sdk-2-auto", "mcp-remote"),)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def testbed(tmp_path_factory):
    async with open_testbed(tmp_path_factory.mktemp("scene")) as ready:
        yield ready


@pytest.mark.parametrize(
    ("client", "transport", "case"), parametrize_cases(WAYS, tasks=TASKS, untimed=UNTIMED, silent=SILENT)
)
async def test_a_client_on_node_handles(testbed, client, transport, case):
    async with asyncio.timeout(HANG):
        await case(testbed, CLIENTS[client], transport)
