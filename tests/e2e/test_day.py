"""A working day with a real IAM server, a local AWS, a real client and human decisions.

`awslabs.iam-mcp-server` runs behind the gateway with its AWS traffic pointed at moto; the client is the MCP SDK's.
"""

import asyncio
import html
import json
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from mcp import Client, StdioServerParameters

from aws import local_aws
from hang import HANG
from process import OKAYED, Person, free_ports, gateway_process, sha256, token
from slack import FakeSlack, buttons_of, text_of

IAM = str(Path(sys.executable).parent / "awslabs.iam-mcp-server")
#: White space and order as a person would write it. The server reformats it, so the expected bytes in AWS are those
#: that the same call writes without a gateway: the fixture `written`.
DOCUMENT = (
    '{"Version": "2012-10-17",\n "Statement": [{"Effect":"Allow",  "Action":"s3:GetObject", "Resource":"*"}]}'
)
#: The arguments of list_users that this server requires beside the obvious ones.
LIST_USERS = {"ctx": {"content": []}}


def put(policy: str) -> dict:
    return {"user_name": "bob", "policy_name": policy, "policy_document": DOCUMENT}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def aws():
    with local_aws("bob") as running:
        yield running


@pytest.fixture(scope="module")
def written(aws):
    async def directly():
        command = StdioServerParameters(
            command=IAM, args=["--allow-write", "--no-confirmation"], env=aws.environment
        )
        async with Client(command) as client:
            return await client.call_tool("put_user_policy", put("direct"))

    assert not asyncio.run(directly()).is_error
    return aws.inline_policy("bob", "direct")


def config(aws, ports: list[int], store: Path, iam: str = "", more: str = "") -> str:
    agents, inbox = ports
    child = f"{{command: [{IAM}, --allow-write, --no-confirmation], env: {json.dumps(aws.environment)}}}"
    return f"""
listen: 127.0.0.1:{agents}
store: sqlite:///{store}
servers:
  iam: {iam or child}
approvers:
  - {{name: alice, slack: U01ALICE, token_sha256: {sha256(token("alice"))}}}
  - {{name: bob, slack: U02BOB, token_sha256: {sha256(token("bob"))}}}
policy:
  default: require_approval
  matrix:
    - {{category: [Read], action: allow}}
    - {{category: [Write, Execute], risk: [Medium, High], action: require_approval}}
  tools:
    delete_user: {{action: deny, reason: Users are removed by the joiner-leaver process.}}
    get_user: {{action: allow, rate_limit: {{max: 2, window: 60}}}}
    create_user: {{arguments: {{properties: {{user_name: {{pattern: "^[a-z]+$"}}}}, required: [user_name]}}}}
    put_role_policy: {{action: require_approval, expire_after: 1s}}
inbox: {{listen: "127.0.0.1:{inbox}"}}
{more}
"""


@asynccontextmanager
async def day(aws, folder: Path, **options):
    ports = free_ports(2)
    file = folder / "okayed.yaml"
    file.write_text(config(aws, ports, folder / "okayed.db", **options))
    file.chmod(0o600)
    async with gateway_process(file, *ports) as process, Person(process.inbox) as alice:
        yield process, alice


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(aws, tmp_path_factory):
    """Run one gateway for all tests that do not change it."""
    async with day(aws, tmp_path_factory.mktemp("day")) as ready:
        yield ready


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(aws, tmp_path):
    """Run a gateway for a test that stops it."""
    async with day(aws, tmp_path) as ready:
        yield ready


def text(result) -> str:
    return result.content[0].text


async def test_a_read_is_allowed_at_once(running):
    process, alice = running
    held = await alice.calls()
    async with Client(f"{process.agents}/mcp/iam") as client:
        result = await client.call_tool("list_users", LIST_USERS)
    assert not result.is_error
    assert '"bob"' in text(result)
    assert await alice.calls() == held


async def test_a_write_waits_and_runs_once_when_alice_approves_in_the_inbox(running, aws, written):
    process, alice = running
    async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(client.call_tool("put_user_policy", put("inbox")))
        held = await alice.waiting()
        assert (held["category"], held["risk"], held["severity"]) == ("Write", "Medium", "high")
        assert json.loads(held["arguments_text"]) == put("inbox")
        await alice.log_in()
        page = await alice.page(f"/calls/{held['id']}")
        shown = html.unescape(re.sub(r"<[^>]+>", "", page))
        for fact in ("put_user_policy", "Write", "Medium", "high", json.dumps(DOCUMENT), *held["evidence"]):
            assert fact in shown
        assert aws.inline_policy("bob", "inbox") is None
        csrf_token = re.search(r'name="csrf_token" value="([^"]+)"', page)[1]
        await alice.press(f"/calls/{held['id']}/approve", csrf_token=csrf_token, digest=held["digest"])
        result = await agent
    assert not result.is_error
    assert "Successfully created/updated inline policy inbox for user bob" in text(result)
    assert aws.inline_policy("bob", "inbox") == written


async def test_a_call_approved_over_the_api_runs(running, aws, written):
    process, alice = running
    async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(client.call_tool("put_user_policy", put("api")))
        held = await alice.waiting()
        status, decided = await alice.post(held["id"], "approve", digest=held["digest"])
        assert (status, decided["state"]) == (200, "approved")
        assert not (await agent).is_error
    assert aws.inline_policy("bob", "api") == written


async def test_a_call_approved_from_a_terminal_runs(running, aws, written):
    process, alice = running
    async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(client.call_tool("put_user_policy", put("cli")))
        held = await alice.waiting()
        code, out, err = await process.command("approve", held["id"])
        assert (code, err) == (0, "")
        assert "approved" in out
        assert not (await agent).is_error
    assert aws.inline_policy("bob", "cli") == written
    assert [review["via"] for review in (await alice.call(held["id"]))["reviews"]] == ["cli"]


def slack_in(slack: FakeSlack) -> str:
    return (
        f"slack: {{bot_token: xoxb-1, app_token: xapp-1, channel: C0APPROVALS, api_url: '{slack.api_url}'}}"
    )


async def test_a_call_approved_in_slack_runs(aws, tmp_path, written):
    async with FakeSlack() as slack, day(aws, tmp_path, more=slack_in(slack)) as (process, alice):
        async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(client.call_tool("put_user_policy", put("slack")))
            card = await slack.next_message()
            held = (await alice.calls("pending"))[0]
            shown = text_of(card.blocks)
            facts = (
                "put_user_policy",
                "Write · Medium risk · high severity",
                '"user_name": "bob"',
                '"policy_name": "slack"',
            )
            for fact in (*facts, json.dumps(DOCUMENT), *held["evidence"][:3]):
                assert fact in shown
            assert aws.inline_policy("bob", "slack") is None
            await slack.click("U01ALICE", card, "approve")
            assert not (await agent).is_error
            await slack.shows(card, "Done: put_user_policy on iam")
    assert aws.inline_policy("bob", "slack") == written
    assert buttons_of(card.blocks) == []


async def test_without_an_answer_in_slack_the_call_expires_and_the_card_says_so(aws, tmp_path):
    async with FakeSlack() as slack, day(aws, tmp_path, more=slack_in(slack)) as (process, _):
        async with Client(f"{process.agents}/mcp/iam") as client:
            call = {"role_name": "r", "policy_name": "p", "policy_document": DOCUMENT}
            result = await client.call_tool("put_role_policy", call)
        assert text(result) == "Nobody answered within 1 s. NOT EXECUTED. You may ask again."
        card = await slack.next_message()
        await slack.shows(card, "Not approved in time, so the call was denied.")
        assert buttons_of(card.blocks) == []


async def test_the_agent_reads_the_reason_of_a_denial(running, aws):
    process, alice = running
    async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(client.call_tool("put_user_policy", put("denied")))
        held = await alice.waiting()
        await alice.post(held["id"], "deny", digest=held["digest"], reason="use the staging account")
        result = await agent
    assert result.is_error
    assert (
        text(result)
        == "Denied by alice: use the staging account. NOT EXECUTED. Asking again will not change this."
    )
    assert aws.inline_policy("bob", "denied") is None


async def test_without_an_answer_the_call_expires(running):
    process, alice = running
    async with Client(f"{process.agents}/mcp/iam") as client:
        result = await client.call_tool(
            "put_role_policy", {"role_name": "r", "policy_name": "p", "policy_document": DOCUMENT}
        )
    assert text(result) == "Nobody answered within 1 s. NOT EXECUTED. You may ask again."
    calls = [call for call in await alice.calls() if call["tool"] == "put_role_policy"]
    assert [call["state"] for call in calls] == ["expired"]


async def test_a_held_call_survives_kill_9_and_runs_once(fresh, aws, written):
    process, alice = fresh

    async def ask():
        async with Client(f"{process.agents}/mcp/iam") as client:
            return await client.call_tool("put_user_policy", put("survivor"))

    lost = asyncio.ensure_future(ask())
    held = await alice.waiting()
    await process.kill()
    await asyncio.wait([lost])
    assert lost.exception() is not None
    await process.start()
    assert [call["id"] for call in await alice.calls("pending")] == [held["id"]]
    status, _ = await alice.post(held["id"], "approve", digest=held["digest"])
    assert status == 200
    assert aws.inline_policy("bob", "survivor") is None
    assert not (await ask()).is_error
    assert aws.inline_policy("bob", "survivor") == written
    assert (await alice.call(held["id"]))["state"] == "completed"
    code, out, _ = await process.command("audit", "verify")
    assert code == 0
    assert "the hash chain is intact" in out


async def test_a_call_that_the_policy_denies_is_answered_and_never_sent(running, aws):
    process, _ = running
    async with Client(f"{process.agents}/mcp/iam") as client:
        denied = await client.call_tool("delete_user", {"user_name": "bob"})
        for _ in range(2):
            assert not (
                await client.call_tool("get_user", {"user_name": "bob", "ctx": LIST_USERS["ctx"]})
            ).is_error
        limited = await client.call_tool("get_user", {"user_name": "bob", "ctx": LIST_USERS["ctx"]})
        invalid = await client.call_tool("create_user", {"user_name": "Root1", **LIST_USERS})
    assert text(denied) == "Denied by policy: Users are removed by the joiner-leaver process. NOT EXECUTED."
    assert re.fullmatch(
        r"Rate limit: 2 calls per 60 s for get_user\. NOT EXECUTED\. Try again in (60|5\d) s\.", text(limited)
    )
    assert (
        text(invalid)
        == 'Denied by policy: arguments.user_name: "Root1" does not match "^[a-z]+$". NOT EXECUTED.'
    )
    assert [user["UserName"] for user in aws.iam.list_users()["Users"]] == ["bob"]


async def over_stdio(process, alice, aws, written, policy: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = StdioServerParameters(command=OKAYED, args=["stdio", "iam", "-c", str(process.config)], env=env)
    async with Client(command) as client:
        assert '"bob"' in text(await client.call_tool("list_users", LIST_USERS))
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(client.call_tool("put_user_policy", put(policy)))
            held = await alice.waiting()
            assert aws.inline_policy("bob", policy) is None
            await alice.post(held["id"], "approve", digest=held["digest"])
            assert not (await agent).is_error
    assert aws.inline_policy("bob", policy) == written


async def test_a_stdio_command_that_joins_a_gateway_holds_and_runs_a_call(running, aws, written):
    process, alice = running
    await over_stdio(process, alice, aws, written, "joined")


async def test_a_stdio_command_with_an_embedded_gateway_holds_and_runs_a_call(fresh, aws, written):
    process, alice = fresh
    await process.stop()
    await over_stdio(process, alice, aws, written, "inside")


async def test_two_commands_started_at_once_share_one_gateway(fresh):
    process, _ = fresh
    await process.stop()
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = StdioServerParameters(command=OKAYED, args=["stdio", "iam", "-c", str(process.config)], env=env)

    async def read():
        async with Client(command) as client:
            first = text(await client.call_tool("list_users", LIST_USERS))
            await both.wait()
            return first

    async with asyncio.timeout(HANG):
        both = asyncio.Barrier(2)
        assert all('"bob"' in answer for answer in await asyncio.gather(read(), read()))


@asynccontextmanager
async def iam_over_http(aws):
    script = Path(__file__).parents[1] / "fakes" / "iam_over_http.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env={**os.environ, **aws.environment},
        stdout=asyncio.subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}/mcp"
    finally:
        process.kill()
        await process.communicate()


async def test_a_call_to_an_http_server_is_held_and_runs_once(aws, tmp_path, written):
    async with iam_over_http(aws) as url, day(aws, tmp_path, iam=f"{{url: '{url}'}}") as (process, alice):
        async with Client(f"{process.agents}/mcp/iam") as client, asyncio.TaskGroup() as tasks:
            assert '"bob"' in text(await client.call_tool("list_users", LIST_USERS))
            agent = tasks.create_task(client.call_tool("put_user_policy", put("http")))
            held = await alice.waiting()
            assert aws.inline_policy("bob", "http") is None
            await alice.post(held["id"], "approve", digest=held["digest"])
            assert not (await agent).is_error
        assert aws.inline_policy("bob", "http") == written
