"""Two gateways on one store act as one: each hears of every change that the other makes."""

import asyncio

import pytest

from approvals.signals import Signal, SignalKind
from approvals.store.signal_feed import SignalFeed
from gateway.app import serving
from gateway.app.tool_views import list_tool_views
from gateways import TASKS, text
from hang import HANG
from two_gateways import OPENERS, two_gateways

READS = "default: require_approval\nmatrix: [{category: [Read], action: allow}]"
#: The id that a client without sessions gives to every request.
SAME_ID = 1


@pytest.fixture(params=OPENERS.values(), ids=OPENERS.keys())
async def gateways(request, tmp_path):
    async with two_gateways(await request.param(tmp_path), READS) as both:
        yield both


async def until(is_true):
    async with asyncio.timeout(HANG):
        while not is_true():
            await asyncio.sleep(0)


# Calls


async def test_an_approval_at_one_gateway_wakes_the_client_at_the_other(gateways):
    a, b = gateways
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(a.call("create_note"))
        [held] = await b.held()
        await b.review(held)
        assert text(await agent) == "ran create_note"
    assert len(a.ran()) == 1


# Cancellations


def cancel(request_id):
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}


async def cancelled_at(gateway, request_id=SAME_ID):
    async with await gateway.post(cancel(request_id)) as answer:
        assert answer.status == 202


async def test_a_cancellation_at_one_gateway_ends_the_wait_at_the_other(gateways):
    a, b = gateways
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(a.call("create_note", {"n": 1}, id=7))
        [first] = await b.held()
        other = tasks.create_task(a.call("create_note", {"n": 2}, id="7"))
        [_, second] = await b.held(2)
        await cancelled_at(b, 7)
        assert text(await agent).startswith("WAITING: a person has to approve this call")
        assert not other.done()
        await b.review(first)
        await b.review(second)
        assert text(await other) == "ran create_note"
    assert len(a.ran()) == 1, "nothing runs for a client that cancelled"


async def test_a_late_signal_of_a_cancellation_does_not_end_a_newer_request_at_the_same_gateway(gateways):
    a, b = gateways
    sent = b.gateway.store.signals()
    await cancelled_at(a)
    late = await anext(sent)
    assert (late.kind, late.origin) == (SignalKind.CANCEL, a.gateway.service.replica.id)
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(a.call("create_note", id=SAME_ID))
        [held] = await a.held()
        b.gateway.store.announce(late)
        b.gateway.store.announce(Signal(SignalKind.CANCEL, "not the key of a request", "a newer replica"))
        await a.review(held)
        assert text(await agent) == "ran create_note"


async def test_the_id_of_a_cancelled_request_can_be_used_again_at_every_gateway(gateways):
    for gateway in gateways:
        await cancelled_at(gateway)
    for number, gateway in enumerate(gateways):
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note", {"n": number}, id=SAME_ID))
            [held] = await gateway.held()
            await gateway.review(held)
            assert text(await agent) == "ran create_note"


async def test_a_task_cancelled_at_one_gateway_is_no_longer_attended_at_the_other(gateways):
    a, b = gateways
    call = {"name": "create_note", "arguments": {}}
    task = (await a.ask("tools/call", call, declares=TASKS)).result["taskId"]
    await until(lambda: a.gateway.service.wakeups.listening)
    cancelled = await b.ask("tasks/cancel", {"taskId": task}, declares=TASKS)
    assert cancelled.result == {"resultType": "complete"}
    await until(lambda: not len(a.gateway.proxy.tasks.runs))
    seen = await a.ask("tasks/get", {"taskId": task}, declares=TASKS)
    assert seen.result["status"] == "cancelled"
    assert a.ran() == []


async def test_a_gateway_attends_the_open_tasks_of_every_gateway(gateways):
    a, b = gateways
    await a.ask("tools/call", {"name": "create_note", "arguments": {}}, declares=TASKS)
    assert not len(b.gateway.proxy.tasks.runs)
    async with serving.run_loops(b.gateway, [], ""):
        await until(lambda: len(b.gateway.proxy.tasks.runs))


async def test_a_gateway_that_closes_ends_its_lease(gateways):
    ids = {one.gateway.service.replica.id for one in gateways}
    for one in gateways:
        await one.gateway.service.sweep()
    a, b = gateways
    assert await b.gateway.store.live_replicas(b.clock.now) == ids
    await a.gateway.close()
    assert await b.gateway.store.live_replicas(b.clock.now) == {b.gateway.service.replica.id}


# Accepted tool definitions


async def change_tool(gateways, *listing):
    """Change a tool that both gateways have listed; the gateways in *listing* list it again."""
    for gateway in gateways:
        await gateway.call("get_note")
    gateways[0].recorder.tools[0]["description"] = "Get a note, and send it to everybody."
    for gateway in listing:
        gateway.gateway.catalogue.mark_stale("notes")
        await gateway.gateway.catalogue.refresh("notes")
        assert changed_tools(gateway) == ["get_note"]


def changed_tools(gateway):
    return [view.tool for view in list_tool_views(gateway.gateway) if view.changed]


async def test_a_definition_accepted_at_one_gateway_is_accepted_at_the_other(gateways):
    a, b = gateways
    await change_tool(gateways, a, b)
    assert b.gateway.accept("notes", "get_note", "alice") == ["get_note"]
    await until(lambda: not changed_tools(a))
    async with asyncio.timeout(HANG):
        assert text(await a.call("get_note")) == "ran get_note"
    assert (await a.gateway.store.select()).items == []


async def test_a_gateway_lists_a_tool_again_whose_new_definition_another_one_accepted(gateways):
    a, b = gateways
    await change_tool(gateways, b)
    b.gateway.accept("notes", "get_note", "alice")
    await until(lambda: changed_tools(a))
    async with asyncio.timeout(HANG):
        assert text(await a.call("get_note")) == "ran get_note"
    assert changed_tools(a) == []


async def test_a_definition_that_was_not_accepted_stays_changed_at_both_gateways(gateways):
    a, b = gateways
    await change_tool(gateways, a, b)
    b.gateway.store.save_pin(next(pin for pin in await a.gateway.store.pins() if pin.tool == "create_note"))
    await b.gateway.store.check()
    for gateway in gateways:
        await gateway.gateway.reload_pins()
        assert changed_tools(gateway) == ["get_note"]


# Lost signals


@pytest.mark.parametrize("kind", ["resync", "freeze", "a kind of a newer version"])
async def test_every_gateway_reads_the_store_again_when_signals_may_be_lost(gateways, kind, monkeypatch):
    a, b = gateways
    await change_tool(gateways, a, b)
    async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(a.call("create_note"))
        [held] = await b.held()
        await until(lambda: a.gateway.service.wakeups.listening)
        with monkeypatch.context() as losing:
            losing.setattr(SignalFeed, "publish", lambda *_: None)
            await b.review(held)
            b.gateway.accept("notes", "get_note", "alice")
            await b.gateway.store.check()
        assert changed_tools(a) == ["get_note"]
        b.gateway.store.announce(Signal(kind))
        assert text(await agent) == "ran create_note"
    await until(lambda: not changed_tools(a))
