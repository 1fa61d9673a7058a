"""Approved calls whose server hangs: a person or `answer_within` gives them up, and late answers."""

import asyncio
import sys
from pathlib import Path

import pytest

from approvals.errors import StoreError
from approvals.model import State
from gateway.hold import answer_timeout
from gateways import running, text
from hang import HANG
from recording_server import RecordingServer, error, result

CHILD = Path(__file__).parents[2] / "fakes" / "stdio_server.py"
WRITE = {"name": "create_note", "arguments": {}}


class Hanging(RecordingServer):
    """A server that answers a call when a test lets it."""

    def __init__(self):
        super().__init__(on_call=self._hang, modern=False)
        self.go_on = asyncio.Event()
        self.requests = []
        self.late_answer = lambda frame: result(frame, {"content": [{"type": "text", "text": "after all"}]})

    async def _hang(self, request, frame):
        self.requests.append(request)
        await self.go_on.wait()
        return self.late_answer(frame)

    async def hung_up_on(self):
        """Wait until the connection of the call is closed."""
        [request] = self.requests
        async with asyncio.timeout(HANG):
            while request.transport is not None and not request.transport.is_closing():
                await asyncio.sleep(0)

    @property
    def told(self):
        """Return the params of the cancellations that the server got."""
        return [
            one.frame["params"]
            for one in self.received
            if one.frame.get("method") == "notifications/cancelled"
        ]


async def send_approved(gateway, agents, ask=None):
    """Approve a call and wait until it is at its server; returns its client and the call."""
    agent = agents.create_task(ask or gateway.call("create_note", id="x1"))
    [held] = await gateway.held()
    await gateway.review(held)
    await gateway.recorder.called()
    return agent, held


async def give_up(gateway, held):
    alice = gateway.gateway.service.directory.by_name("alice")
    return await gateway.gateway.service.give_up(held.id, alice, "it hangs", via="cli")


async def until(gateway, held, state):
    async with asyncio.timeout(HANG):
        while held.state is not state:
            held = await gateway.gateway.service.wait_for_change(held, 5)
    return held


async def wait_until_no_runs(gateway):
    """Wait until no call is running."""
    async with asyncio.timeout(HANG):
        while gateway.gateway.service.running:
            await asyncio.sleep(0)


async def test_a_person_gives_up_a_call_whose_server_hangs(monkeypatch):
    monkeypatch.setattr(answer_timeout, "LATE_SECONDS", 0.05)
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        agent, held = await send_approved(gateway, agents)
        assert (await give_up(gateway, held)).state is State.IN_DOUBT
        assert "It MAY have run" in text(await agent)
        await wait_until_no_runs(gateway)
        await gateway.recorder.hung_up_on()
        [told] = gateway.recorder.told
        assert told["requestId"] == "x1"
        assert (await gateway.gateway.service.get(held.id)).note == "alice gave it up: it hangs"
        gateway.recorder.go_on.set()  # the client has left
        assert "It MAY have run" in text(await gateway.call("create_note", id=2))
        assert len(gateway.ran()) == 1


async def test_a_call_that_was_given_up_is_no_longer_open():
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        agent, held = await send_approved(gateway, agents)
        assert [one.id for one in await gateway.gateway.service.open_calls()] == [held.id]
        await give_up(gateway, held)
        await agent
        assert await gateway.gateway.service.open_calls() == []
        gateway.recorder.go_on.set()


@pytest.mark.parametrize(("seconds", "state"), [(119, State.FORWARDING), (121, State.IN_DOUBT)])
async def test_a_server_that_does_not_answer_in_time_leaves_the_call_in_doubt(seconds, state):
    async with Hanging() as server:
        options = f"url: '{server.url}', answer_within: 2m"
        async with running(server_options=options) as gateway, asyncio.TaskGroup() as agents:
            gateway.recorder = server
            agent, held = await send_approved(gateway, agents)
            await gateway.pass_time(seconds)
            looked = gateway.gateway.service.wakeups.listening
            async with asyncio.timeout(HANG):
                while state is State.FORWARDING and not looked:
                    await asyncio.sleep(0)
            held = await until(gateway, await gateway.gateway.service.get(held.id), state)
            assert held.note == ("The server did not answer within 2 min." if held.settled_at else "")
            if state is State.IN_DOUBT:
                assert "It MAY have run" in text(await agent)
            server.go_on.set()
            assert (await until(gateway, held, State.COMPLETED)).note == ""


async def test_setting_the_clock_ahead_does_not_shorten_the_answer_timeout(monkeypatch):
    looked = asyncio.Event()

    async def look(*_):
        looked.set()
        await asyncio.Event().wait()

    async with Hanging() as server:
        options = f"url: '{server.url}', answer_within: 2m"
        async with running(server_options=options) as gateway, asyncio.TaskGroup() as agents:
            gateway.recorder = server
            agent, held = await send_approved(gateway, agents)
            gateway.clock.ahead = 3600.0
            monkeypatch.setattr(gateway.gateway.service, "wait_for_change", look)
            gateway.gateway.service.wakeups.wake(held.id)
            async with asyncio.timeout(HANG):
                await looked.wait()
            assert (await gateway.gateway.service.get(held.id)).state is State.FORWARDING
            monkeypatch.undo()
            server.go_on.set()
            await until(gateway, held, State.COMPLETED)
            agent.cancel()


@pytest.mark.parametrize("fails", ["version", "swap"])
async def test_a_failing_store_does_not_end_a_running_call(fails, monkeypatch):
    monkeypatch.setattr(answer_timeout, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(answer_timeout, "RETRY_SECONDS", 0.01)
    failed = asyncio.Semaphore(0)

    async def fail(*_):
        failed.release()
        raise StoreError("The store could not write (disk full); nothing was changed.")

    async with Hanging() as server:
        options = f"url: '{server.url}', answer_within: 2m"
        async with running(server_options=options) as gateway, asyncio.TaskGroup() as agents:
            gateway.recorder = server
            agent, held = await send_approved(gateway, agents)
            monkeypatch.setattr(gateway.gateway.store, fails, fail)
            if fails == "swap":
                await gateway.pass_time(121)
            async with asyncio.timeout(HANG):
                await failed.acquire()
                await failed.acquire()
            monkeypatch.undo()
            server.go_on.set()
            assert (await until(gateway, held, State.COMPLETED)).outcome is not None
            await agent


async def test_without_answer_within_a_server_has_unlimited_time():
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        agent, _ = await send_approved(gateway, agents)
        await gateway.pass_time(1_000_000)
        gateway.recorder.go_on.set()
        assert text(await agent) == "after all"


@pytest.mark.parametrize("state", [State.COMPLETED, State.UPSTREAM_ERROR])
async def test_a_late_answer_after_giving_up_is_still_recorded(state):
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        if state is State.UPSTREAM_ERROR:
            gateway.recorder.late_answer = lambda frame: error(frame, -32000, "after all")
        agent, held = await send_approved(gateway, agents)
        doubt = await give_up(gateway, held)
        await agent
        gateway.recorder.go_on.set()
        await until(gateway, doubt, state)
        assert "after all" in str(await gateway.call("create_note", id=2))
        assert len(gateway.ran()) == 1


async def test_after_a_person_resolved_the_call_a_late_answer_is_only_an_event():
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        agent, held = await send_approved(gateway, agents)
        await give_up(gateway, held)
        await agent
        alice = gateway.gateway.service.directory.by_name("alice")
        found = await gateway.gateway.service.resolve(held.id, alice, "it did not run", via="cli")
        gateway.recorder.go_on.set()
        await wait_until_no_runs(gateway)
        assert await gateway.gateway.service.get(held.id) == found
        assert (await gateway.kinds())[-1] == "answer.late"


async def test_a_child_process_may_still_answer_after_the_cancellation():
    server = f"command: [{sys.executable}, {CHILD}]"
    async with running("default: require_approval", server_options=server) as gateway:
        opening = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening}
        async with await gateway.post(body) as answer:
            session = {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"]}
        async with asyncio.TaskGroup() as agents:
            agent = agents.create_task(gateway.call("wait", headers=session))
            [held] = await gateway.held()
            running_now = await until(gateway, await gateway.review(held), State.FORWARDING)
            [behind] = gateway.gateway.proxy.settings.upstreams["notes"].inner.sessions.values()
            async with asyncio.timeout(HANG):
                while not behind.connection.pending:
                    await asyncio.sleep(0)
            doubt = await give_up(gateway, running_now)
            assert "It MAY have run" in text(await agent)
            done = await until(gateway, doubt, State.COMPLETED)
            assert b"too late" in done.outcome.body


async def test_in_2026_the_gateway_closes_the_stream_and_sends_no_cancellation():
    async with running(recorder=Hanging()) as gateway, asyncio.TaskGroup() as agents:
        gateway.recorder.modern = True
        agent, held = await send_approved(gateway, agents, gateway.ask("tools/call", WRITE))
        await give_up(gateway, held)
        assert "It MAY have run" in (await agent).result["content"][0]["text"]
        await wait_until_no_runs(gateway)
        await gateway.recorder.hung_up_on()
        assert gateway.recorder.told == []
        assert (await gateway.gateway.service.get(held.id)).state is State.IN_DOUBT
