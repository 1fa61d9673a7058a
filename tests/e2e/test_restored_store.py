"""`okayed run` with a restored store, a start that is killed, and a clock that was ahead."""

import asyncio
import random
import shutil
import sqlite3
import time
from contextlib import closing

import aiohttp
import pytest

from process import OKAYED, Person, Process, free_ports, sha256, token
from recording_server import RecordingServer

ROUNDS = 4
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@pytest.fixture
async def gateway(tmp_path):
    async with asyncio.timeout(120), RecordingServer() as recorder:
        ports = free_ports(2)
        config = tmp_path / "okayed.yaml"
        config.write_text(
            f"listen: 127.0.0.1:{ports[0]}\nstore: sqlite:///h.db\ninbox: {{listen: '127.0.0.1:{ports[1]}'}}\n"
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\napprovers: [{{name: alice, token_sha256: {sha256(token('alice'))}}}]\n"
            "policy: {default: require_approval}\napprovals: {hold_for: 0.1s, approved_for: 1h, expire_after: 1h}\n"
        )
        config.chmod(0o600)
        process = Process(config, *ports)
        process.recorder = recorder
        await process.start()
        yield process
        await process.stop()


async def call(gateway, text):
    params = {"name": "create_note", "arguments": {"text": text}}
    frame = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    async with aiohttp.ClientSession(headers=HEADERS) as http:
        async with http.post(f"{gateway.agents}/mcp/notes", json=frame) as answer:
            return (await answer.read()).decode()


async def approved(gateway, text):
    await call(gateway, text)
    async with Person(gateway.inbox) as alice:
        held = await alice.waiting(text)
        status, _ = await alice.post(held["id"], "approve", digest=held["digest"])
        assert status == 200
    return held["id"]


async def state(gateway, call_id):
    async with Person(gateway.inbox) as alice:
        return (await alice.call(call_id))["state"]


async def test_yesterdays_store_needs_the_restored_option_and_runs_nothing_again(gateway):
    store = gateway.config.with_name("h.db")
    call_id = await approved(gateway, "once")
    await gateway.stop()
    shutil.copy(store, store.with_name("copy"))
    await gateway.start()
    await call(gateway, "once")
    assert len(gateway.recorder.calls) == 1
    await gateway.stop()
    shutil.copy(store.with_name("copy"), store)
    process = await asyncio.create_subprocess_exec(
        OKAYED, "run", "-c", str(gateway.config), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().rstrip().endswith("or continue with this one: okayed run --restored.")
    await gateway.start(options=["--restored"])
    assert await state(gateway, call_id) == "voided"
    assert "restored from a copy, so this call may have run since" in await call(gateway, "once")
    assert len(gateway.recorder.calls) == 1
    code, out, _ = await gateway.command("log")
    assert (code, "store.restored" in out) == (0, True)


async def test_a_gateway_killed_during_its_start_keeps_its_held_calls(gateway):
    await call(gateway, "kept")
    call_id = await approved(gateway, "approved")
    await gateway.stop()
    chance = random.Random()
    for _ in range(ROUNDS):
        process = await asyncio.create_subprocess_exec(
            OKAYED, "run", "-c", str(gateway.config), stderr=asyncio.subprocess.DEVNULL
        )
        await asyncio.sleep(chance.uniform(0.2, 1.5))  # at any point of the start
        process.kill()
        await process.wait()
    await gateway.start()
    assert await state(gateway, call_id) == "approved"
    async with Person(gateway.inbox) as alice:
        await alice.waiting("kept")
    assert "ran create_note" in await call(gateway, "approved")


async def test_reset_clock_makes_the_gateway_ready_after_the_clock_was_an_hour_ahead(gateway):
    call_id = await approved(gateway, "soon")
    await gateway.stop()
    with closing(sqlite3.connect(gateway.config.with_name("h.db"), isolation_level=None)) as db:
        db.execute("UPDATE progress SET time = ?", (time.time() + 1800,))
    await gateway.start()
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.agents}/readyz") as answer:
        assert answer.status == 503
        assert "okayed check --reset-clock" in await answer.text()
    code, _, said = await gateway.command("check", "--reset-clock")
    assert (code, "Another gateway uses" in said) == (1, True)
    await gateway.stop()
    assert gateway.log.read_text().count("s behind the latest time in the store") == 1
    code, out, _ = await gateway.command("check", "--reset-clock")
    assert (code, out.splitlines()[-1].endswith("Calls voided: 1.")) == (0, True)
    await gateway.start()
    await gateway.ready()
    assert await state(gateway, call_id) == "voided"
