"""Real Node clients, each through a running gateway: the result of a held call."""

import asyncio

import pytest
import pytest_asyncio

from client_cases import table
from hang import HANG
from npm import NODE
from real_clients import Client, a_scene

CLIENTS = {
    "sdk-1": Client(NODE, "ts_sdk1.mjs", ""),
    "sdk-2-auto": Client(NODE, "ts_sdk2.mjs", "auto"),
    "inspector-legacy": Client(NODE, "inspector.mjs", "legacy"),
    "inspector-modern": Client(NODE, "inspector.mjs", "modern"),
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
async def scene(tmp_path_factory):
    async with a_scene(tmp_path_factory.mktemp("scene")) as ready:
        yield ready


@pytest.mark.parametrize(
    ("client", "transport", "case"), table(WAYS, tasks=TASKS, untimed=UNTIMED, silent=SILENT)
)
async def test_a_client_on_node_handles(scene, client, transport, case):
    async with asyncio.timeout(HANG):
        await case(scene, CLIENTS[client], transport)
