"""Stopping a gateway: running calls may finish, waiting clients are told to retry, and nothing else delays it."""

import asyncio
from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp import web

from approvals.errors import StoreError
from approvals.model import Decision
from approvals.store.memory.store import MemoryStore
from gateway.app import gateway as app
from gateway.app import serving
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.fronts import listener
from gateways import MODERN, Clock, call, last_frame, text
from hang import HANG
from recording_server import RecordingServer, result

CONFIG = """
listen: 127.0.0.1:0
inbox: {{listen: "127.0.0.1:0"}}
store: "memory:"
approvers: [{{name: alice}}]
approvals: {{tasks: all, on_disconnect: cancel}}
servers: {{notes: {{url: "{url}"}}}}
policy: {{default: require_approval, matrix: [{{category: [Read], action: allow}}]}}
"""


async def test_the_inbox_accepts_the_host_that_it_listens_on():
    text = CONFIG.format(url="http://127.0.0.1:9").replace(
        'inbox: {listen: "127.0.0.1:0"}',
        'inbox: {listen: "127.0.0.2:0", url: "https://approvals.example.com"}',
    )
    async with assemble(parse_config(text, {}, str), Clock()) as gateway, serving.serve(gateway) as listening:
        async with aiohttp.ClientSession() as http, http.get(f"{listening.inbox}login") as answer:
            assert answer.status == 200
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{listening.inbox}login", headers={"Host": "10.0.0.1"}) as answer:
                assert answer.status == 421


class Serving:
    """A gateway with its listeners and loops, stopped while clients are connected."""

    def __init__(self, more: str = "") -> None:
        self._more = more

    async def __aenter__(self) -> "Serving":
        self.recorder = RecordingServer(on_call=self.answer, on_get=self.stream, on_listen=self.stream)
        self.answers = asyncio.Event()
        self._stack = AsyncExitStack()
        self._running = AsyncExitStack()
        await self._stack.enter_async_context(self.recorder)
        config = parse_config(CONFIG.format(url=self.recorder.url) + self._more, {}, str)
        self.gateway = await self._running.enter_async_context(assemble(config, Clock()))
        listening = await self._running.enter_async_context(serving.serve(self.gateway))
        self._stack.push_async_callback(self._running.aclose)
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        self.url = f"{listening.agents}notes"
        return self

    async def __aexit__(self, *_) -> None:
        self.answers.set()
        await self._stack.aclose()

    async def answer(self, request, frame):
        await self.answers.wait()
        return result(frame, {"content": [{"type": "text", "text": "done"}]})

    async def stream(self, request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b": open\n\n")
        await asyncio.Event().wait()

    def ask(self, frame: dict, **headers: str) -> asyncio.Task[dict]:
        async def asked():
            given = {"Accept": "application/json, text/event-stream", **headers}
            async with self.http.post(self.url, json=frame, headers=given) as answer:
                return last_frame(await answer.read())

        return asyncio.ensure_future(asked())

    async def held(self):
        async with asyncio.timeout(HANG):
            while not (found := (await self.gateway.store.select(["pending"])).items):
                await asyncio.sleep(0)
        return found[0]

    def stop(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self._running.aclose())


@pytest.fixture
async def ours(monkeypatch):
    monkeypatch.setattr(listener, "CLOSE_SECONDS", 0.05)
    async with Serving() as serving_now:
        yield serving_now


async def ends_well(ours, agent):
    """Stop the gateway while a call runs: it waits for the server's answer, and the agent gets that answer."""
    stopping = ours.stop()
    cut, _ = await asyncio.wait([agent, stopping], timeout=10 * listener.CLOSE_SECONDS)
    assert not cut
    ours.answers.set()
    async with asyncio.timeout(HANG):
        assert text(await agent) == "done"
        await stopping


async def test_a_call_that_runs_when_the_gateway_stops_gets_its_answer(ours):
    agent = ours.ask(call("get_note"))
    await ours.recorder.called()
    await ends_well(ours, agent)


async def test_an_approved_call_that_runs_when_the_gateway_stops_gets_its_answer(ours):
    agent = ours.ask(call("create_note"))
    held = await ours.held()
    alice = ours.gateway.service.directory.by_name("alice")
    await ours.gateway.service.review(held.id, alice, Decision.APPROVE, via="cli", digest=held.digest)
    await ours.recorder.called()
    await ends_well(ours, agent)


async def test_a_call_that_does_not_finish_is_cut_off_after_the_grace_period(ours, monkeypatch):
    monkeypatch.setattr(app, "GRACE", 0.05)
    agent = ours.ask(call("get_note"))
    await ours.recorder.called()
    async with asyncio.timeout(HANG):
        await ours.stop()
    with pytest.raises(aiohttp.ClientError):
        await agent


async def test_when_the_gateway_stops_waiting_clients_are_told_to_retry_and_calls_are_kept(ours):
    agent = ours.ask(call("create_note"))
    held = await ours.held()
    async with asyncio.timeout(HANG):
        await ours.stop()
        assert text(await agent).startswith(
            f"WAITING: a person has to approve this call ({held.id}). It has NOT run."
        )
    assert (await ours.gateway.store.get(held.id)).state == "pending"
    assert ours.recorder.calls == []


RESUMES = {"MCP-Protocol-Version": "2025-11-25"}


async def body_of(ours, frame, **headers):
    given = {"Accept": "application/json, text/event-stream", **headers}
    async with ours.http.post(ours.url, json=frame, headers=given) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_a_resumable_stream_ends_without_an_answer_after_the_running_calls(ours):
    waits = asyncio.ensure_future(body_of(ours, call("create_note"), **RESUMES))
    held = await ours.held()
    runs = ours.ask(call("get_note", id=2))
    await ours.recorder.called()
    stopping = ours.stop()
    done, _ = await asyncio.wait([waits, runs, stopping], timeout=10 * listener.CLOSE_SECONDS)
    assert not done, "all three wait for the call that runs"
    ours.answers.set()
    async with asyncio.timeout(HANG):
        assert text(await runs) == "done"
        status, stream, _ = await waits
        await stopping
    lines = [line for line in stream.splitlines() if line and not line.startswith(": ")]
    assert (status, [line.split(":")[0] for line in lines]) == (200, ["id", "retry", "data"]), stream
    assert lines[0].startswith(f"id: {held.id}.")
    assert lines[2].strip() == "data:"
    kept = await ours.gateway.store.get(held.id)
    assert kept.state == "pending", "also where a client that leaves cancels its call"


async def test_while_a_call_finishes_new_calls_are_refused_and_answers_get_through(ours):
    runs = ours.ask(call("get_note"))
    await ours.recorder.called()
    stopping = ours.stop()
    ready = ours.url.replace("/mcp/notes", "/readyz")
    async with asyncio.timeout(HANG):
        while True:
            async with ours.http.get(ready) as answer:
                if answer.status == 503 and (await answer.json())["status"] == "stopping":
                    break
        while (refused := await body_of(ours, call("get_note", id=2)))[0] != 503:
            pass
    assert refused[2]["Retry-After"] == "5"
    assert "The gateway is stopping; try again in a few seconds." in refused[1]
    async with ours.http.get(ours.url, headers={"Accept": "text/event-stream"}) as answer:
        assert answer.status == 503
    said = await body_of(ours, {"jsonrpc": "2.0", "id": 9, "result": {}})
    assert said[0] != 503, "a running call may wait for this answer"
    ours.answers.set()
    async with asyncio.timeout(HANG):
        assert text(await runs) == "done"
        await stopping


async def test_while_draining_the_gateway_is_not_ready_but_serves_everything(monkeypatch):
    monkeypatch.setattr(listener, "CLOSE_SECONDS", 0.05)
    async with Serving("drain: 1h\n") as ours:
        ours.answers.set()
        stopping = ours.stop()
        ready = ours.url.replace("/mcp/notes", "/readyz")
        async with asyncio.timeout(HANG):
            while True:
                async with ours.http.get(ready) as answer:
                    if (await answer.json())["status"] == "stopping":
                        break
            assert answer.status == 503
            assert text(await ours.ask(call("get_note"))) == "done"
            waits = ours.ask(call("create_note"))
            await ours.held()
            assert not waits.done()
            stopping.cancel()
            await asyncio.gather(stopping, waits, return_exceptions=True)


async def test_endless_streams_do_not_delay_the_stop(ours):
    headers = {"Accept": "text/event-stream"}
    async with ours.http.get(ours.url, headers=headers) as own:
        await own.content.readline()
        listen = {
            "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
            "params": {"notifications": {"toolsListChanged": True}, "_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}},
        }  # fmt: skip
        modern = {**headers, "MCP-Protocol-Version": MODERN, "Mcp-Method": "subscriptions/listen"}
        async with ours.http.post(ours.url, json=listen, headers=modern) as subscribed:
            await subscribed.content.readline()
            async with asyncio.timeout(HANG):
                await ours.stop()


async def test_a_client_that_waits_for_a_task_result_does_not_delay_the_stop(ours):
    old = {"MCP-Protocol-Version": "2025-11-25"}
    created = await ours.ask(call("create_note", task={}), **old)
    wanted = {
        "jsonrpc": "2.0", "id": 2, "method": "tasks/result", "params": {"taskId": created["result"]["task"]["taskId"]},
    }  # fmt: skip
    headers = {**old, "Accept": "text/event-stream"}
    async with ours.http.post(ours.url, json=wanted, headers=headers) as waiting:
        await waiting.content.readline()
        async with asyncio.timeout(HANG):
            await ours.stop()
            assert b"result" not in await waiting.read()
    assert (await ours.held()).task


class FailingStore(MemoryStore):
    """Its due calls cannot be read in the first attempts."""

    failures = 3

    async def due(self, now):
        if self.failures:
            self.failures -= 1
            raise StoreError("The disk is full.")
        return await super().due(now)


async def test_a_sweep_that_fails_for_a_while_is_logged_when_it_begins_and_ends(monkeypatch, caplog):
    async def open_failing(_config, *, restored=False):
        return FailingStore()

    caplog.set_level("INFO", "okayed")
    monkeypatch.setattr(serving, "SWEEP", 0.0)
    config = parse_config(CONFIG.format(url="http://127.0.0.1:9"), {}, str)
    async with (
        assemble(config, Clock(), opener=open_failing) as gateway,
        asyncio.timeout(HANG),
        asyncio.TaskGroup() as tasks,
    ):
        sweeping = tasks.create_task(serving.sweep_calls(gateway))
        while "the sweep of held calls works again" not in caplog.messages:
            await asyncio.sleep(0)
        sweeping.cancel()
    assert [message for message in caplog.messages if "sweep" in message] == [
        "the sweep of held calls failed and is tried again: The disk is full.",
        "the sweep of held calls works again",
    ]
