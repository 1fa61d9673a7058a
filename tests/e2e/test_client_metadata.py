"""The `_meta` that Codex and Claude Code add to a call: every view folds it, and none of it is lost."""

import asyncio
import html
import json
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio

from captured_frames import CAPTURES
from hang import HANG
from process import Person, Process, free_ports, gateway_process, sha256, token
from recording_server import RecordingServer
from slack import FakeSlack, buttons_of, text_of

#: Members that are not forwarded, because they belong to the client's exchange with the gateway.
OF_THE_EXCHANGE = ("progressToken", "io.modelcontextprotocol/")
#: A request sent between two tests, so that the second test's call is not taken for a repeat.
LIST = '{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(kw_only=True)
class Scene:
    recorder: RecordingServer
    slack: FakeSlack
    process: Process
    alice: Person
    http: aiohttp.ClientSession

    def calling(self, frame: str):
        """Send a captured call byte for byte."""
        modern = "2026-07-28" in frame
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        more = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "create_note"}
        return self.http.post(
            f"{self.process.agents}/mcp/notes",
            data=frame.encode(),
            headers=headers | (more if modern else {}),
        )

    async def sent(self, frame: str) -> bytes:
        async with self.calling(frame) as answer:
            return await answer.read()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory):
    async with a_scene(tmp_path_factory.mktemp("scene")) as ready:
        yield ready


@asynccontextmanager
async def a_scene(folder):
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(RecordingServer())
        slack = await stack.enter_async_context(FakeSlack())
        ports = free_ports(2)
        file = folder / "okayed.yaml"
        file.write_text(f"""
listen: 127.0.0.1:{ports[0]}
store: sqlite:///{folder / "okayed.db"}
servers: {{notes: {{url: '{recorder.url}'}}}}
approvers: [{{name: alice, slack: U01ALICE, token_sha256: {sha256(token("alice"))}}}]
policy: {{default: require_approval}}
slack: {{bot_token: xoxb-1, app_token: xapp-1, channel: C0APPROVALS, api_url: '{slack.api_url}'}}
inbox: {{listen: "127.0.0.1:{ports[1]}"}}
""")
        file.chmod(0o600)
        process = await stack.enter_async_context(gateway_process(file, *ports))
        alice = await stack.enter_async_context(Person(process.inbox))
        await alice.log_in()
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Scene(recorder=recorder, slack=slack, process=process, alice=alice, http=http)


def own(frame: dict) -> dict:
    """Return the members that the client itself added to `_meta`."""
    return {
        name: value
        for name, value in frame["params"]["_meta"].items()
        if not name.startswith(OF_THE_EXCHANGE)
    }


@pytest.mark.parametrize("client", CAPTURES)
async def test_client_metadata_is_one_line_in_every_view_and_slack_can_approve(scene, client):
    await scene.sent(LIST)
    frame = CAPTURES[client].first
    said = own(json.loads(frame))
    cards, runs = len(scene.slack.messages), len(scene.recorder.calls)
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(scene.sent(frame))
        card = await scene.slack.next_message(cards + 1)
        held = await scene.alice.waiting()
        size = len(json.dumps(said, separators=(",", ":")))
        line = f"{size} bytes of client metadata: {', '.join(said)}"
        secrets = re.findall(r'"session_?[iI]d": *"([^"]+)"', json.dumps(said))

        shown = text_of(card.blocks)
        assert buttons_of(card.blocks) == ["approve", "deny"]
        assert "possible secret" not in shown
        assert f"also sent: {line}" in shown

        page = await scene.alice.page(f"/calls/{held['id']}")
        folded = re.search(r'<details id="client-metadata">(.*?)</details>', page, re.DOTALL)[1]
        assert f"Also sent: {line}" in plain(folded.split("</summary>")[0])
        assert all(secret in plain(folded) for secret in secrets)
        assert 'aria-label="Also sent"' not in page
        assert 'id="approve-button"' in page

        assert held["client_metadata"] == line
        assert held["extra_params"] == {"_meta": said}
        _, out, _ = await scene.process.command("show", held["id"])
        assert f"also sent: {line}" in out.splitlines()
        assert not any(secret in out for secret in secrets)

        await scene.slack.click("U01ALICE", card, "approve")
    assert b"ran create_note" in calling.result()
    assert own(scene.recorder.calls[runs].frame) == said


@pytest.mark.parametrize("client", CAPTURES)
async def test_a_repeat_with_new_client_metadata_is_the_same_call_and_runs_as_shown(scene, client):
    await scene.sent(LIST)
    captured = CAPTURES[client]
    runs = len(scene.recorder.calls)
    async with asyncio.timeout(HANG):
        first = asyncio.ensure_future(scene.sent(captured.first))
        held = await scene.alice.waiting()
        first.cancel()
        await asyncio.wait([first])
        again = asyncio.ensure_future(scene.sent(captured.again))
        status, _ = await scene.alice.post(held["id"], "approve", digest=held["digest"])
        assert status == 200
        assert b"ran create_note" in await again
    assert await scene.alice.calls("pending") == []
    assert [own(one.frame) for one in scene.recorder.calls[runs:]] == [own(json.loads(captured.first))]


def plain(markup: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", markup))
