"""The event stream signals changes to signed-in users and programs only."""

import asyncio
from collections import Counter

import pytest

from approvals.identity import Directory
from approvals.presence import MIN_ATTENDED
from approvals.signals import Signal
from approvals.store.memory.store import MemoryStore
from approvals.web.login import IDLE
from hang import HANG
from inbox import Inbox, sha256


async def part(stream):
    """Return the next event of a stream, with its empty line."""
    async with asyncio.timeout(HANG):
        return (await stream.content.readuntil(b"\n\n")).decode()


async def rest(stream):
    """Return the rest of a stream."""
    async with asyncio.timeout(HANG):
        return await stream.content.read()


@pytest.fixture
async def quick():
    """An inbox whose streams ping every 10 ms."""
    async with Inbox(ping=0.01) as running:
        yield running


async def test_a_stream_begins_with_an_event_and_signals_each_change_without_content(inbox):
    client = await inbox.person()
    async with client.get("/api/v1/events") as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        assert stream.headers["Cache-Control"] == "no-store"
        assert await part(stream) == "retry: 3000\nevent: inbox\ndata: 0\n\n"
        call = await inbox.hold()
        assert await part(stream) == "event: inbox\ndata: 1\n\n"
        await inbox.deny(call)
        assert await part(stream) == "event: inbox\ndata: 2\n\n"


async def test_a_program_follows_with_its_token(inbox):
    client = await inbox.program()
    async with client.get("/api/v1/events") as stream:
        assert stream.status == 200
        await part(stream)
        await inbox.hold()
        assert await part(stream) == "event: inbox\ndata: 1\n\n"


async def test_a_quiet_stream_is_kept_open_by_comments(quick):
    client = await quick.program()
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        assert await part(stream) == ": still here\n\n"
        assert await part(stream) == ": still here\n\n"


async def test_a_stream_ends_with_the_session(quick):
    client = await quick.person()
    secret = next(iter(client.cookie_jar)).value
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        await quick.store.delete_login(sha256(secret))
        assert b"event" not in await rest(stream)


class CountingStore(MemoryStore):
    """Counts how often each login was looked up."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    async def find_login(self, id_sha256):
        self.found[id_sha256] += 1
        return await super().find_login(id_sha256)


async def test_signing_out_at_one_inbox_ends_the_streams_of_that_session_at_every_inbox_at_once():
    store, patient = CountingStore(), {"ping": 2 * HANG}
    async with Inbox(store=store, **patient) as here, Inbox(store=store, **patient) as there:
        alice, bob = await here.person("alice"), await here.person("bob")
        mine, theirs = (sha256(next(iter(client.cookie_jar)).value) for client in (alice, bob))
        async with alice.get("/api/v1/events") as ended, bob.get("/api/v1/events") as kept:
            await part(ended)
            await part(kept)
            assert store.found == {mine: 1, theirs: 1}
            await there.store.delete_login(mine)
            assert await rest(ended) == b""
            assert store.found == {mine: 2, theirs: 1}, "the other stream was not checked"
            await there.hold()
            assert await part(kept) == "event: inbox\ndata: 1\n\n"


async def test_a_stream_signals_that_a_client_came_or_left(inbox):
    client, call = await inbox.program(), await inbox.hold()
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        with inbox.service.attend(call.id):
            await inbox.service.sweep()
            assert await part(stream) == "event: inbox\ndata: 1\n\n"
        inbox.now += MIN_ATTENDED
        await inbox.service.sweep()
        assert await part(stream) == "event: inbox\ndata: 2\n\n"


@pytest.mark.parametrize("kind", ["resync", "freeze", "a kind of a newer version"])
async def test_a_stream_signals_a_change_when_signals_may_be_lost(inbox, kind):
    client = await inbox.program()
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        inbox.store.announce(Signal("pin", "iam"))
        inbox.store.announce(Signal(kind))
        assert await part(stream) == "event: inbox\ndata: 1\n\n"


async def test_a_stream_ends_when_the_approver_is_removed(quick):
    client = await quick.program("bob")
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        quick.service.directory = Directory([])
        assert b"event" not in await rest(stream)


async def test_a_stream_does_not_keep_an_idle_session(quick):
    client = await quick.person()
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        quick.now += IDLE
        assert b"event" not in await rest(stream)


async def test_another_site_cannot_listen(inbox):
    client = await inbox.person()
    async with client.get("/api/v1/events", headers={"Origin": "https://evil.example"}) as stream:
        assert stream.status == 403


async def test_the_number_of_open_streams_is_limited_and_a_closed_one_frees_its_place():
    async with asyncio.timeout(HANG), Inbox(ping=0.01, max_streams=1) as inbox:
        client = await inbox.program()
        async with client.get("/api/v1/events") as first:
            await part(first)
            async with client.get("/api/v1/events") as second:
                assert second.status == 503
            first.connection.transport.abort()
        status = 503
        while status == 503:
            async with client.get("/api/v1/events") as third:
                status = third.status


async def test_streams_end_when_the_inbox_closes(inbox):
    client = await inbox.program()
    async with client.get("/api/v1/events") as stream:
        await part(stream)
        await inbox.app.shutdown()
        assert await rest(stream) == b""
