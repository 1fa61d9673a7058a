"""A `run` and the gateways embedded in `okayed stdio`: which of them has the store and the addresses."""

import asyncio
import subprocess

import aiohttp
import pytest

from gateway.wire.protocol import SUPPORTED
from hang import HANG
from process import OKAYED, Person, notes_gateway
from recording_server import RecordingServer
from stdio_client import open_stdio_client

REVISIONS = (SUPPORTED[-2], SUPPORTED[-1])


@pytest.fixture
async def notes():
    async with RecordingServer() as recorder:
        yield recorder


@pytest.fixture
async def gateway(tmp_path, notes):
    """A `run` that has not started yet."""
    process = notes_gateway(
        tmp_path, notes.url, "{default: require_approval, matrix: [{category: [Read], action: allow}]}"
    )
    yield process
    if process.process is not None:
        await process.stop()


async def role(gateway):
    async with aiohttp.ClientSession() as http, http.get(f"{gateway.agents}/healthz") as answer:
        return (await answer.json())["role"]


def sidecar(gateway, revision=REVISIONS[0]):
    return open_stdio_client(revision, "notes", "-c", str(gateway.config))


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_command_that_joined_a_run_waits_for_it_and_never_replaces_it(gateway, notes, revision):
    async with asyncio.timeout(HANG), sidecar(gateway, revision) as client:
        client.call(1, "get_note")
        assert await client.result_text(1) == "ran get_note"
        assert await role(gateway) == "inside"
    await gateway.start()
    async with asyncio.timeout(HANG), sidecar(gateway, revision) as client:
        client.call(1, "get_note")
        assert await client.result_text(1) == "ran get_note"
        for request_id in (2, 3):
            await gateway.kill()
            client.call(request_id, "get_note")
            await gateway.start()
            assert await client.result_text(request_id) == "ran get_note"
            assert (await role(gateway), gateway.process.returncode) == ("run", None)


async def test_an_embedded_gateway_makes_room_for_a_run_and_no_client_notices(gateway, notes):
    async with asyncio.timeout(90), sidecar(gateway, REVISIONS[0]) as first:
        first.call(1, "get_note")
        assert await first.result_text(1) == "ran get_note"
        async with sidecar(gateway, REVISIONS[1]) as second, Person(gateway.inbox) as alice:
            first.call(2, "create_note", text="first")
            second.call(2, "create_note", text="second")
            held = [await alice.waiting("first"), await alice.waiting("second")]
            assert await role(gateway) == "inside"
            await gateway.start()
            await gateway.wait_for_log("agents: ")
            assert await role(gateway) == "run"
            for one in held:
                await alice.post(one["id"], "approve", digest=one["digest"])
            assert [await first.result_text(2), await second.result_text(2)] == ["ran create_note"] * 2
            first.call(3, "get_note")
            assert await first.result_text(3) == "ran get_note"
            assert {one["id"] for one in await alice.calls()} == {one["id"] for one in held}
    assert [one.frame["params"]["arguments"].get("text") for one in notes.calls].count("first") == 1
    assert gateway.process.returncode is None


async def test_a_second_run_is_refused_at_once_in_one_sentence(gateway):
    await gateway.start()
    command = [OKAYED, "run", "-c", str(gateway.config)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 1
    assert done.stderr.startswith("Another `okayed run` uses ")
    assert len(done.stderr.splitlines()) == 1
