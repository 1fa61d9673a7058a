"""Popular servers, each behind a gateway: their tools are listed, and an allowed call returns."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_asyncio
from mcp import Client

import third_party
from aws import local_aws
from hang import HANG
from npm import MODULES, NODE
from process import free_ports, gateway_process, sha256, token

pytestmark = pytest.mark.asyncio(loop_scope="module")


def on_node(name: str, *args: str) -> list[str]:
    return [NODE, str(MODULES / "@modelcontextprotocol" / name / "dist" / "index.js"), *args]


def servers(folder: Path, aws) -> dict:
    """Return the servers section of the config."""
    return {
        "everything": {"command": on_node("server-everything")},
        "filesystem": {"command": on_node("server-filesystem", str(folder))},
        "memory": {
            "command": on_node("server-memory"),
            "env": {"MEMORY_FILE_PATH": str(folder / "memory.jsonl")},
        },
        "git": {"command": [third_party.program("mcp1", "mcp-server-git"), "--repository", str(folder)]},
        "time": {"command": [third_party.program("mcp1", "mcp-server-time"), "--local-timezone", "UTC"]},
        "iam": {
            "command": [str(Path(sys.executable).parent / "awslabs.iam-mcp-server")],
            "env": aws.environment,
        },
    }


NEEDS_GIT = pytest.mark.skipif(
    shutil.which("git") is None, reason="There is no git here, which this server runs."
)
#: Server, one of its tools, its arguments ({folder} is filled in), and text in the answer.
CALLS = [
    ("everything", "echo", {"message": "over there"}, "over there"),
    ("filesystem", "read_text_file", {"path": "{folder}/hello.txt"}, "hello from a file"),
    ("memory", "read_graph", {}, "entities"),
    pytest.param("git", "git_status", {"repo_path": "{folder}"}, "hello.txt", marks=NEEDS_GIT),
    ("time", "convert_time", {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}, "T21:00"),
    ("iam", "list_users", {"ctx": {"content": []}}, "bob"),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory):
    third_party.install()
    folder = tmp_path_factory.mktemp("files")
    (folder / "hello.txt").write_text("hello from a file")
    if shutil.which("git"):
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    ports = free_ports(2)
    with local_aws("bob") as aws:
        file = tmp_path_factory.mktemp("gateway") / "okayed.yaml"
        file.write_text(f"""
listen: 127.0.0.1:{ports[0]}
store: "memory:"
servers: {json.dumps(servers(folder, aws))}
approvers: [{{name: alice, token_sha256: {sha256(token("alice"))}}}]
policy: {{default: allow}}
inbox: {{listen: "127.0.0.1:{ports[1]}"}}
""")
        file.chmod(0o600)
        async with gateway_process(file, *ports) as process:
            yield process, folder


@pytest.mark.parametrize(("server", "tool", "arguments", "answer"), CALLS)
async def test_a_real_server_is_reached_through_the_gateway(running, server, tool, arguments, answer):
    process, folder = running
    filled = json.loads(json.dumps(arguments).replace("{folder}", str(folder)))
    async with asyncio.timeout(HANG), Client(f"{process.agents}/mcp/{server}") as client:
        assert tool in [one.name for one in (await client.list_tools()).tools]
        result = await client.call_tool(tool, filled)
    assert not result.is_error
    assert answer in result.content[0].text
