"""The gateway is killed while calls of `okayed stdio` are held: clients do not notice, and each call runs once."""

import asyncio

import pytest

from gateway.wire.protocol import SUPPORTED
from hang import HANG
from process import Person, notes_gateway
from recording_server import RecordingServer
from stdio_client import open_stdio_client


@pytest.fixture
async def notes():
    async with RecordingServer() as recorder:
        yield recorder


@pytest.fixture
async def gateway(tmp_path, notes):
    process = notes_gateway(tmp_path, notes.url)
    await process.start()
    yield process
    await process.stop()


@pytest.mark.parametrize("revision", SUPPORTED)
async def test_a_held_call_survives_a_kill_and_restart_of_the_gateway(gateway, notes, revision):
    async with (
        asyncio.timeout(HANG),
        open_stdio_client(revision, "notes", "-c", str(gateway.config)) as client,
    ):
        async with Person(gateway.inbox) as alice:
            client.call(7, "create_note", text="hello")
            held = await alice.waiting("hello")
            await gateway.kill()
            await gateway.start()
            await alice.post(held["id"], "approve", digest=held["digest"])
            assert await client.result_text(7) == "ran create_note"
            assert [one["id"] for one in await alice.calls()] == [held["id"]]
    assert len(notes.calls) == 1


async def test_held_calls_of_eight_clients_survive_repeated_kills(gateway, notes):
    async with asyncio.timeout(90), asyncio.TaskGroup() as clients, Person(gateway.inbox) as alice:
        told = [
            clients.create_task(_creates(gateway, SUPPORTED[number % len(SUPPORTED)], f"note-{number}"))
            for number in range(8)
        ]
        held = [await alice.waiting(f"note-{number}") for number in range(8)]
        for _ in range(4):
            await gateway.kill()
            await gateway.start()
        for one in held:
            await alice.post(one["id"], "approve", digest=one["digest"])
        assert await asyncio.gather(*told) == ["ran create_note"] * 8
        assert len(await alice.calls()) == 8
    assert len(notes.calls) == 8


async def _creates(gateway, revision, text):
    async with open_stdio_client(revision, "notes", "--url", gateway.agents) as client:
        client.call(1, "create_note", text=text)
        return await client.result_text(1)


async def test_a_denial_during_the_restart_reaches_the_client_afterwards(gateway, notes):
    async with (
        asyncio.timeout(HANG),
        open_stdio_client(SUPPORTED[0], "notes", "--url", gateway.agents) as client,
    ):
        async with Person(gateway.inbox) as alice:
            client.call(7, "create_note", text="hello")
            held = await alice.waiting("hello")
            await gateway.kill()
            await gateway.start()
            await alice.post(held["id"], "deny", digest=held["digest"], reason="no such notes")
            assert "no such notes" in await client.result_text(7)
    assert notes.calls == []
