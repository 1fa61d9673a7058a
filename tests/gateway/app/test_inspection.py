"""Listing and explaining tools: the verdicts are those of the gateway."""

import asyncio
import json

import pytest

from approvals.store.sqlite.store import SqliteStore
from gateway.app import inspection
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.auth.agents import LOCAL
from gateway.call.request import Exchange, RequestHead
from gateway.policy.evaluation import Action
from gateway.tools.pins import Pins, canonical_definition
from gateway.upstreams.reply import read_body
from hang import HANG
from recording_server import TOOLS, RecordingServer


@pytest.mark.parametrize("gateway_runs", [True, False])
async def test_a_tool_is_compared_with_the_definition_accepted_in_the_store(tmp_path, gateway_runs):
    store = await SqliteStore.open(tmp_path / "x.db")
    Pins(store, ()).accept(
        "notes", "get_note", canonical_definition({**TOOLS[0], "description": "Get a note, as it was."})
    )
    await store.check()
    if not gateway_runs:
        await store.close()
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: 'sqlite:///{tmp_path}/x.db'\npin: quarantine\n"
            "policy: {default: allow}", {}, str,
        )  # fmt: skip
        explained = await inspection.explain_call(config, "notes", "get_note", "{}")
        rows = {row.tool.name: row.verdict.action for row in await inspection.list_tool_rows(config, "notes")}
    if gateway_runs:
        await store.close()
    assert (explained.verdict.action, explained.verdict.rule) == (Action.DENY, "pin")
    assert rows == {"get_note": Action.DENY, "create_note": Action.ALLOW, "delete_note": Action.ALLOW}


async def test_listing_tools_creates_no_store(tmp_path):
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: 'sqlite:///{tmp_path}/x.db'\n"
            "policy: {default: allow}", {}, str,
        )  # fmt: skip
        assert len(await inspection.list_tool_rows(config, "notes")) == 3
    assert list(tmp_path.iterdir()) == []


DYING = "echo starting >&2; echo 'cannot open /srv/\x1b[31mdata' >&2; echo >&2; exit 1"


async def test_the_stderr_of_a_server_that_fails_to_start_is_shown_only_to_the_operator():
    config = parse_config(
        f"servers: {{files: {{command: [sh, -c, {json.dumps(DYING)}]}}}}\nstore: 'memory:'\npolicy: {{default: allow}}",
        {}, str,
    )  # fmt: skip
    [row] = await inspection.list_tool_rows(config, "files")
    assert row.problem.endswith(r"Its last line on stderr: cannot open /srv/\u{001B}[31mdata")
    async with assemble(config) as gateway:
        body = json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {}}}
        )
        reply = await gateway.proxy.handle(
            Exchange(agent=LOCAL, server="files", verb="POST", body=body.encode(), head=RequestHead())
        )
        assert b"/srv" not in await read_body(reply)


async def test_a_server_whose_own_child_keeps_stderr_open_is_not_waited_for():
    command = "sleep 30 >/dev/null & echo gone >&2; exit 1"
    config = parse_config(
        f"servers: {{files: {{command: [sh, -c, {json.dumps(command)}]}}}}\nstore: 'memory:'\npolicy: {{default: allow}}",
        {}, str,
    )  # fmt: skip
    async with asyncio.timeout(HANG):
        [row] = await inspection.list_tool_rows(config, "files")
    assert row.problem.endswith("Its last line on stderr: gone")
