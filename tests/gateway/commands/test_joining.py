"""The stdio command: whose agent it is."""

import asyncio
import json

import pytest

from gateway.app import assembled
from gateway.commands.joining import Way, _agent, to_gateway
from gateway.config import parse
from gateway.errors import UserError
from gateway.serving import serving
from gateway.upstreams import whole
from gateway.upstreams.http import pool
from gateways import call, running, text
from process import sha256
from recorder import Recorder


async def test_the_stdio_command_is_the_agent_of_its_token():
    async with running(more=f"agents: [{{name: ci, token_sha256: {sha256('ci-token')}}}]") as gateway:
        assert (await _agent(gateway.gateway, "ci-token", "notes")).name == "ci"
        with pytest.raises(UserError, match="HOLDPOINT_AGENT_TOKEN"):
            await _agent(gateway.gateway, "other", "notes")


CONFIG = """
listen: {listen}
inbox: {{listen: "127.0.0.1:0"}}
store: "sqlite:///{folder}/holdpoint.db"
servers: {{notes: {{url: "{url}"}}}}
policy: {{default: allow}}
"""


async def test_a_gateway_that_listens_on_a_unix_socket_is_joined(tmp_path):
    async with Recorder() as recorder:
        listen = f"unix:{tmp_path}/agents.sock"
        config = parse(CONFIG.format(listen=listen, folder=tmp_path, url=recorder.url), {}, str)
        async with assembled(config) as gateway, serving(gateway), asyncio.timeout(10):
            async with to_gateway(config) as http, asyncio.TaskGroup() as tasks:
                exchange = await Way(config, "notes", http, tasks).find(None)
                reply = await exchange("POST", json.dumps(call("get_note")).encode(), {})
                assert text(json.loads(await whole(reply.chunks))) == "ran get_note"


async def test_without_agents_it_needs_no_token():
    async with running() as gateway:
        assert (await _agent(gateway.gateway, "", "notes")).name == "local"


async def test_a_client_that_leaves_while_its_gateway_starts_is_no_fault():
    config = parse(
        "{listen: 127.0.0.1:0, inbox: {listen: 127.0.0.1:0}, store: 'memory:', servers: {notes: {url: 'http://127.0.0.1:1/'}}, policy: {default: deny}}",
        {}, str,
    )  # fmt: skip
    async with pool() as http, asyncio.TaskGroup() as tasks:
        way = Way(config, "notes", http, tasks)
        leaving = tasks.create_task(way.exchange("POST", b"{}", {}))
        async with asyncio.timeout(5):
            while len(tasks._tasks) < 2:
                await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait({leaving})
        way.leave()
