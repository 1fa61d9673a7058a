"""The listeners of a real process: too many connections, a stop, a proxy in front."""

import asyncio

import aiohttp
import pytest

from hang import HANG
from process import Process, free_ports, sha256, token

CONFIG = """
listen: 127.0.0.1:{agents}
store: sqlite:///{folder}/okayed.db
inbox: {{listen: "127.0.0.1:{inbox}"}}
servers: {{shop: {{url: "http://127.0.0.1:9/"}}}}
agents: [{{name: ci, token_sha256: {agent}}}]
approvers: [{{name: alice, token_sha256: {alice}}}]
policy: {{default: require_approval}}
"""


@pytest.fixture
async def process(tmp_path):
    agents, inbox = free_ports(2)
    file = tmp_path / "okayed.yaml"
    file.write_text(
        CONFIG.format(
            agents=agents, inbox=inbox, folder=tmp_path, agent=sha256("ci"), alice=sha256(token("alice"))
        )
    )
    file.chmod(0o600)
    made = Process(file, agents, inbox)
    yield made
    await made.stop()


async def status(url):
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status


async def test_half_written_requests_of_strangers_do_not_use_up_the_inboxs_connections(process):
    await process.start("sh", "-c", 'ulimit -Sn 256; ulimit -Hn 320; exec "$@"', "sh")
    host, port = process.agents.removeprefix("http://").split(":")
    async with asyncio.timeout(HANG):
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(400)]
        for _, writer in slow:
            writer.write(b"POST /mcp/shop HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await status(f"{process.inbox}/healthz") == 200
        # Connections are refused at once or closed ten seconds later; then agents are served again.
        await asyncio.gather(*(reader.read() for reader, _ in slow), return_exceptions=True)
        assert await status(f"{process.agents}/healthz") == 200
    for _, writer in slow:
        writer.close()
    log = process.log.read_text()
    assert log.count("agents: refused connections beyond the limit of 128") == 1
    assert log.count("agents: closed connections of slow peers") == 1
