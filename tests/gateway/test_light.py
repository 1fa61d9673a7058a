"""The imports of a gateway, and its garbage collection."""

import asyncio
import gc
import json
import os
import sys
from importlib import metadata

import pytest
from mcp.server.request_state import AESGCMRequestStateCodec

from gateway import VERSION
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.app.serving import FREEZE_STEP, THRESHOLDS, freeze_open_calls, run_loops
from gateway.hold.request_state import PREFIX, InvalidStateError, RequestState, StateSealer
from gateways import running
from hang import HANG
from recording_server import RecordingServer
from rows import each_row

OLD, NEW = b"o" * 32, b"n" * 32
TICKET = RequestState(call="hold_1", round=2, asked=True, state="theirs")

#: The libraries that neither a gateway nor a sidecar loads for allowed calls, and their first use.
LATE = {
    "aiohttp": "the inbox, and requests of agents that are not plain",
    "cel": "a rule with `when`",
    "cryptography": "the first state that a client carries",
    "importlib.metadata": "the version of a package",
    "jinja2": "the inbox",
    "jwt": "the first JWT of an agent",
    "mcp": "the demo",
    "prometheus_client": "/metrics",
    "pydantic": "the demo",
    "rich": "a table on a terminal",
    "slack_sdk": "a config with Slack",
    "sqlite_utils": "`okayed check --store`",
    "urllib.request": "aiohttp",
}

RUN = """
import asyncio, json, sys
from pathlib import Path
import gateway.cli.main
import gateway.cli.run
from gateway.app.config import load_config
from gateway.app.gateway import assemble
from gateway.app.serving import serve

async def exchange(url, verb, path, body=b""):
    host, port = url.split("/")[2].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"{verb} {path} HTTP/1.1\\r\\nHost: {host}:{port}\\r\\nContent-Type: application/json\\r\\n"
    head += "Accept: application/json, text/event-stream\\r\\nConnection: close\\r\\n"
    writer.write((head + f"Content-Length: {len(body)}\\r\\n\\r\\n").encode() + body)
    answer = await reader.read()
    writer.close()
    return answer

async def main():
    async with assemble(load_config(Path(sys.argv[1]), {})) as gateway, serve(gateway) as endpoints:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "get_note", "arguments": {}}}
        answer = await exchange(endpoints.agents, "POST", "/mcp/notes", json.dumps(call).encode())
        assert b"ran get_note" in answer, answer
        await gateway.discovery_done.wait()
        print(json.dumps(sorted(sys.modules)))
        page = await exchange(endpoints.inbox, "GET", "/login")
        assert b"200 OK" in page and b"<form" in page, page
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""

JOIN = """
import asyncio, atexit, json, os, sys
before = set(sys.modules)  # coverage has loaded sqlite3
atexit.register(lambda: print(json.dumps(sorted(sys.modules.keys() - before)), file=sys.stderr))
from gateway.cli.main import main
sys.argv[0] = "okayed"
main()
"""


async def run_python(code, *args, stdin=b""):
    """Run Python code in a new process; returns the lines of stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *args, stdin=-1, stdout=-1, stderr=-1,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    async with asyncio.timeout(HANG):
        out, err = await process.communicate(stdin)
    assert process.returncode == 0, err.decode()
    return out.splitlines(), err.splitlines()


def test_the_version_is_that_of_the_package():
    assert metadata.version("okayed") == VERSION


async def test_an_allowed_call_loads_no_library_that_it_does_not_use(tmp_path):
    """Each takes up to a fifth of a second and 13 MB to load."""
    async with RecordingServer() as recorder:
        path = tmp_path / "okayed.yaml"
        path.write_text(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: sqlite:///okayed.db\n"
            "policy: {default: require_approval, matrix: [{category: [Read], action: allow}]}\n"
            "listen: '127.0.0.1:0'\ninbox: {listen: '127.0.0.1:0'}\n"
        )
        path.chmod(0o600)
        (before, after), _ = await run_python(RUN, str(path))
    assert LATE.keys() & set(json.loads(before)) == set()
    assert {"aiohttp", "jinja2", "approvals.web.pages"} <= set(json.loads(after))


async def test_a_sidecar_that_joins_a_gateway_loads_no_library_that_it_does_not_use():
    opening = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}).encode() + b"\n"
    async with running("default: allow") as gateway:
        url = gateway.url.removesuffix("/mcp/notes")
        out, err = await run_python(JOIN, "stdio", "notes", "--url", url, stdin=line)
    assert b'"protocolVersion"' in out[0]
    assert (LATE.keys() | {"email", "jsonschema_rs", "ruamel.yaml", "sqlite3", "gateway.proxy"}) & set(
        json.loads(err[-1])
    ) == set()


def test_the_gateway_and_the_sdk_open_each_others_states():
    ours, theirs = StateSealer([NEW, OLD]), AESGCMRequestStateCodec([OLD])
    assert (
        ours.open(PREFIX + theirs.seal(b'{"call":"hold_1","round":2,"asked":true,"state":"theirs"}'))
        == TICKET
    )
    sealed = StateSealer([OLD]).seal(TICKET)
    assert b'"hold_1"' in theirs.unseal(sealed.removeprefix(PREFIX))
    assert ours.open(sealed) == TICKET


@each_row(
    "spoilt",
    [
        lambda state: state[:-1] + ("A" if state[-1] != "A" else "B"),
        lambda state: state + "=",
        lambda state: state + "é",
        lambda state: state[:20],
        lambda state: state.replace("v1.", "v2."),
        lambda state: state.replace("v1.", ""),
        lambda _: PREFIX,
        lambda _: StateSealer([b"x" * 32]).seal(TICKET),
    ],
)
def test_a_state_sealed_with_another_key_is_invalid(spoilt):
    ours = StateSealer([NEW])
    with pytest.raises(InvalidStateError):
        ours.open(spoilt(ours.seal(TICKET)))


async def test_objects_from_startup_are_frozen_while_the_gateway_runs():
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{n: {{url: '{recorder.url}'}}}}\npolicy: {{default: deny}}\nstore: 'memory:'", {}, str
        )
        before = gc.get_threshold()
        async with assemble(config) as gateway:
            async with run_loops(gateway, [], ""), asyncio.timeout(HANG):
                while not gc.get_freeze_count():
                    await asyncio.sleep(0)
                assert gateway.discovery_done.is_set()
                assert gc.get_threshold() == THRESHOLDS
            assert gc.get_freeze_count() == 0
            assert gc.get_threshold() == before


def test_open_calls_are_frozen_only_at_a_new_peak():
    try:
        assert freeze_open_calls(FREEZE_STEP - 1, 0) == 0
        assert gc.get_freeze_count() == 0
        assert freeze_open_calls(FREEZE_STEP, 0) == FREEZE_STEP
        first = gc.get_freeze_count()
        assert first
        kept = [[] for _ in range(10_000)]
        assert freeze_open_calls(2 * FREEZE_STEP - 1, FREEZE_STEP) == FREEZE_STEP
        assert gc.get_freeze_count() == first
        assert freeze_open_calls(2 * FREEZE_STEP, FREEZE_STEP) == 2 * FREEZE_STEP
        assert gc.get_freeze_count() > first + len(kept) // 2
    finally:
        gc.unfreeze()
