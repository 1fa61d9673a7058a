"""The command line with a running gateway: reviews, the trail, reloads, starts and stops."""

import asyncio
import json
import os
import re
import signal
import sys
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from command import BASE, okayed
from gateways import META, MODERN, call
from hang import HANG
from process import OKAYED, Person, free_ports, gateway_process, sha256, token


@pytest.fixture
async def running(tmp_path):
    agents, inbox = free_ports(2)
    file = tmp_path / "okayed.yaml"
    file.write_text(
        BASE
        + f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\nstore: sqlite:///{tmp_path}/h.db\n"
        f"approvers: [{{name: alice, token_sha256: {sha256(token('alice'))}}}, {{name: bob, token_sha256: {sha256(token('bob'))}}}]\n"
    )
    file.chmod(0o600)
    async with gateway_process(file, agents, inbox) as process, Person(process.inbox) as alice:
        yield process, alice


async def test_a_server_that_exits_at_once_affects_no_other(running):
    process, alice = running
    config = process.config.read_text()
    process.config.write_text(config.replace("servers:\n", "servers:\n  brief: {command: ['true']}\n"))
    await process.stop()
    await process.start()
    await process.wait_for_log("could not list the tools of brief")
    assert "1002" in await ask(process, "list_orders", status="paid")
    assert await alice.calls("pending") == []
    assert await process.stop() == 0
    assert "Traceback" not in process.log.read_text()


async def ask(process, tool="update_order", meta=None, **arguments):
    from mcp import Client

    given = arguments or {"number": "1002", "status": "shipped"}
    async with Client(f"{process.agents}/mcp/shop") as client:
        return (await client.call_tool(tool, given, meta=meta)).content[0].text


async def test_a_call_is_reviewed_from_a_terminal(running):
    process, alice = running
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(ask(process, meta={"acme/ticket": "OPS-1"}))
        held = await alice.waiting()
        _, out, _ = await process.command("pending")
        assert held["id"] in out
        assert "update_order" in out
        assert json.loads((await process.command("pending", "--json"))[1])[0]["id"] == held["id"]
        _, out, _ = await process.command("show", held["id"])
        assert '"status":"shipped"' in out.replace(" ", "")
        assert 'also sent: {"_meta":{"acme/ticket":"OPS-1"}}' in out
        code, _, err = await process.command("approve", held["id"], who="eve")
        assert (code, "The token in OKAYED_TOKEN is not an approver's token" in err) == (1, True)
        code, out, _ = await process.command("deny", held["id"], "--reason", "not today", who="bob")
        assert (code, "denied" in out) == (0, True)
        assert await agent == "Denied by bob: not today. NOT EXECUTED. Asking again will not change this."
    code, _, err = await process.command("approve", held["id"])
    assert (code, "already denied" in err) == (1, True)
    code, _, err = await process.command("show", "hold_nothing")
    assert (code, len(err.splitlines())) == (1, 1)
    assert (await process.command("pending"))[1] == "Nothing is waiting.\n"
    _, out, _ = await process.command("show", held["id"], "--json")
    assert json.loads(out)["reviews"][0]["reason"] == "not today"


async def test_a_call_with_secrets_is_approved_from_a_terminal_after_they_were_shown(running):
    process, alice = running
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(ask(process, meta={"acme/api_key": "t0psecret"}))
        held = await alice.waiting()
        shown = [(await process.command(*words))[1] for words in (("pending",), ("show", held["id"]))]
        assert "t0psecret" not in "".join(shown)
        assert f"Hidden values: 1. To see them: okayed show {held['id']} --exact" in shown[1]
        code, _, err = await process.command("approve", held["id"])
        assert (code, "okayed show ID --exact" in err) == (1, True)
        assert "t0psecret" in (await process.command("show", held["id"], "--exact"))[1]
        assert (await process.command("approve", held["id"]))[0] == 0
        assert "1002" in await agent
    assert "t0psecret" not in (await process.command("log", "--json"))[1]


async def test_the_trail_is_printed_verified_and_exported(running, tmp_path):
    process, _ = running
    assert "1002" in await ask(process, "list_orders", status="paid")
    _, out, _ = await process.command("log")
    assert "call.allowed" in out
    _, out, _ = await process.command(
        "log", "--json", "--tool", "list_orders", "--agent", "local", "--since", "1h"
    )
    assert [json.loads(line)["kind"] for line in out.splitlines()] == ["call.allowed"]
    assert (await process.command("log", "--tool", "other"))[1] == ""
    code, out, _ = await process.command("audit", "verify")
    assert (code, "the hash chain is intact" in out) == (0, True)
    checkpoint = out.split("checkpoint ")[1].strip()
    await ask(process, "list_orders", status="paid")
    assert (await process.command("audit", "verify", "--checkpoint", checkpoint))[0] == 0
    _, exported, _ = await process.command("audit", "export")
    file = tmp_path / "trail.jsonl"
    file.write_text(exported.replace("list_orders", "list_0rders"))
    code, _, err = await process.command("audit", "verify", str(file))
    assert code == 1
    assert re.search(r"the hash chain is broken at event \d+: ", err)


def cut(exported):
    """Remove the last event."""
    return "".join(exported.splitlines(keepends=True)[:-1])


async def test_a_truncated_trail_fails_against_its_checkpoint_without_a_config(running, tmp_path):
    process, _ = running
    await ask(process, "list_orders", status="paid")
    _, out, _ = await process.command("audit", "verify")
    checkpoint = out.split("checkpoint ")[1].strip()
    _, exported, _ = await process.command("audit", "export")
    file = tmp_path / "elsewhere.jsonl"
    file.write_text(cut(exported))
    done = okayed("audit", "verify", str(file), cwd=tmp_path)
    assert (done.returncode, "the hash chain is intact" in done.stdout) == (0, True)
    done = okayed("audit", "verify", str(file), "--checkpoint", checkpoint, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"the hash chain is broken at event \d+: the trail ends before event \d+", done.stderr)
    done = okayed("audit", "verify", str(file), "--checkpoint", "5", cwd=tmp_path)
    assert (done.returncode, "is not a checkpoint" in done.stderr) == (2, True)


async def test_with_a_store_key_the_trail_and_the_calls_verify_only_with_that_key(tmp_path):
    agents, inbox = free_ports(2)
    config = tmp_path / "keyed.yaml"
    text = (
        BASE + f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
        f"store: sqlite:///{tmp_path}/h.db\nstore_key: {'k' * 32}\n"
    )
    config.write_text(text)
    config.chmod(0o600)
    async with gateway_process(config, agents, inbox) as process:
        await ask(process, "list_orders", status="paid")
    assert (await process.command("audit", "verify"))[0] == 0
    config.write_text(text.replace("k" * 32, "j" * 32))
    code, _, err = await process.command("audit", "verify")
    assert (code, "broken at event 1:" in err) == (1, True)
    done = await asyncio.to_thread(okayed, "run", "-c", str(config), cwd=tmp_path)
    assert (done.returncode, "was written under another key" in done.stderr) == (1, True)


async def test_watching_shows_calls_as_they_come(running):
    process, alice = running
    env = {**os.environ, "OKAYED_TOKEN": token("alice"), "OKAYED_URL": process.inbox, "COLUMNS": "200"}
    watching = await asyncio.create_subprocess_exec(
        OKAYED, "watch", "-c", str(process.config), env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    async with asyncio.timeout(HANG):
        assert await watching.stdout.readline() == b"Nothing is waiting.\n"
        agent = asyncio.ensure_future(ask(process))
        held = await alice.waiting()
        while held["id"].encode() not in await watching.stdout.readline():
            pass
        await alice.post(held["id"], "deny", digest=held["digest"], reason="no")
        await agent
        watching.send_signal(signal.SIGINT)
        await watching.communicate()
    assert watching.returncode == 130


@pytest.mark.parametrize("form", [[], ["--json"]])
async def test_following_the_log_shows_events_as_they_come(running, form):
    process, _ = running
    following = await asyncio.create_subprocess_exec(
        OKAYED, "log", "--follow", *form, "-c", str(process.config), stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )  # fmt: skip
    await ask(process, "list_orders", status="paid")
    async with asyncio.timeout(HANG):
        assert b"call.allowed" in await following.stdout.readline()
    following.kill()
    await following.communicate()


async def test_a_valid_config_change_applies_at_once_and_an_invalid_one_never(running):
    process, alice = running
    good = process.config.read_text()
    process.config.write_text(good.replace("default: require_approval", "default: nonsense"))
    await process.wait_for_log("is invalid")
    agent = asyncio.ensure_future(ask(process))
    held = await alice.waiting()
    await alice.post(held["id"], "deny", digest=held["digest"], reason="still held")
    assert "still held" in await agent
    process.config.write_text(good.replace("default: require_approval", "default: deny"))
    await process.wait_for_log("the changed config is in use")
    assert "Denied by policy" in await ask(process, number="1003", status="lost")


async def test_a_config_mounted_by_kubernetes_is_reloaded(tmp_path):
    agents, inbox = free_ports(2)
    mount = tmp_path / "etc"

    def version(name, default):
        """Mount as the kubelet does: a folder per version, and an atomically replaced link to the newest."""
        (mount / name).mkdir(parents=True)
        file = mount / name / "okayed.yaml"
        file.write_text(
            BASE.replace("require_approval", default)
            + f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\nstore: 'memory:'\n"
        )
        file.chmod(0o644)
        (mount / "..data_tmp").symlink_to(name)
        (mount / "..data_tmp").rename(mount / "..data")

    version("..1", "require_approval")
    (mount / "okayed.yaml").symlink_to("..data/okayed.yaml")
    async with gateway_process(mount / "okayed.yaml", agents, inbox) as process:
        version("..2", "deny")
        await process.wait_for_log("the changed config is in use")
        assert "Denied by policy" in await ask(process, number="1003", status="lost")


async def test_a_second_gateway_on_the_same_store_is_refused(running, tmp_path):
    agents, inbox = free_ports(2)
    other = tmp_path / "other.yaml"
    other.write_text(
        BASE
        + f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\nstore: sqlite:///{tmp_path}/h.db\n"
    )
    other.chmod(0o600)
    done = await asyncio.to_thread(okayed, "run", "-c", str(other), cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1


async def test_a_port_in_use_is_one_sentence(running, tmp_path):
    process, _ = running
    taken = process.agents.rpartition(":")[2]
    other = tmp_path / "other.yaml"
    other.write_text(
        BASE + f"listen: 127.0.0.1:{taken}\ninbox: {{listen: '127.0.0.1:1'}}\nstore: 'memory:'\n"
    )
    other.chmod(0o600)
    done = await asyncio.to_thread(okayed, "run", "-c", str(other), cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"127.0.0.1:{taken} is in use; stop the program that listens there, or choose another port.\n"
    )


async def test_sigterm_ends_the_gateway_with_exit_0_and_keeps_waiting_calls(running):
    process, alice = running
    agent = asyncio.ensure_future(ask(process))
    held = await alice.waiting()
    assert await process.stop() == 0
    assert (await agent).startswith(
        f"WAITING: a person has to approve this call ({held['id']}). It has NOT run."
    )
    assert "Traceback" not in process.log.read_text()
    await process.start()
    assert [call["id"] for call in await alice.calls("pending")] == [held["id"]]


async def test_a_second_sigterm_ends_the_gateway_at_once(tmp_path):
    agents, inbox = free_ports(2)
    file = tmp_path / "okayed.yaml"
    child = Path(__file__).parents[1] / "fakes" / "stdio_server.py"
    file.write_text(
        f"servers: {{shop: {{command: [{sys.executable}, {child}, --modern]}}}}\npolicy: {{default: allow}}\nstore: 'memory:'\n"
        f"listen: 127.0.0.1:{agents}\ninbox: {{listen: '127.0.0.1:{inbox}'}}\n"
    )
    file.chmod(0o600)
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "wait"}
    async with gateway_process(file, agents, inbox) as process, aiohttp.ClientSession() as http:
        url = f"{process.agents}/mcp/shop"
        await process.ready()
        agent = asyncio.ensure_future(http.post(url, json=call("wait", _meta=META), headers=headers))
        await process.wait_for_log("waits for a line")
        process.send_signal(signal.SIGTERM)
        await process.wait_for_log("stopping; running calls get 20 s")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        with pytest.raises(aiohttp.ClientError):
            await agent


async def test_the_metrics_count_verdicts(running):
    process, alice = running
    await ask(process, "list_orders", status="paid")
    async with alice.api.get(f"{process.inbox}/metrics") as answer:
        text = await answer.text()
    assert 'okayed_tool_calls_total{server="shop",verdict="allowed"} 1.0' in text


async def test_the_tools_are_on_a_page_of_the_inbox(running):
    process, alice = running
    await ask(process, "list_orders", status="paid")
    await alice.log_in()
    assert "refund_order" in await alice.page("/tools")
    shown = await alice.page("/tools/shop/refund_order")
    assert "Moves money or makes a financial commitment. A mistake can do serious harm" in shown
    assert "How do I block refund_order completely?" in shown


async def test_the_demo_has_a_call_waiting_and_a_link_to_log_in():
    process = await asyncio.create_subprocess_exec(
        OKAYED, "demo", "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    seen = ""
    async with asyncio.timeout(HANG):
        while "agent: refund_order {" not in seen:
            line = (await process.stdout.readline()).decode()
            assert line, (await process.stderr.read()).decode()
            seen += line
        secret = re.search(r"OKAYED_TOKEN=(\S+)", seen)[1]
        link = re.search(r"http://\S+/login/once/\S+", seen)[0]
        inbox = re.search(r"OKAYED_URL=(\S+)", seen)[1]
        env = {"OKAYED_TOKEN": secret, "OKAYED_URL": inbox}
        while not (
            waiting := json.loads(
                (await asyncio.to_thread(okayed, "pending", "--json", cwd=Path.cwd(), **env)).stdout
            )
        ):
            pass
        done = await asyncio.to_thread(okayed, "approve", waiting[0]["id"], cwd=Path.cwd(), **env)
        assert done.returncode == 0, done.stderr
        while "agent: refund_order -> refunded 980.00" not in seen:
            seen += (await process.stdout.readline()).decode()
        async with aiohttp.ClientSession() as http, http.get(link) as answer:
            assert answer.status == 200
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
