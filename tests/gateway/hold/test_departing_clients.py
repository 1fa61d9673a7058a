"""A client that leaves at any moment leaves nothing behind, and its repeat gets the call's one run."""

import asyncio
import json
from itertools import count
from types import coroutine

import pytest

from approvals.errors import StoreError
from gateway.auth.agents import LOCAL
from gateway.call.request import Exchange, RequestHead
from gateway.hold.patience import ClientKey
from gateways import call, running, text
from hang import HANG
from parking_reader import ParkingReader

HEADERS = (("content-type", "application/json"), ("accept", "application/json, text/event-stream"))
FRONT = ("okayed-front", "stdio")


@coroutine
def leave_after(job, waits):
    """Do *job*, and cancel the task that does it when it waits for the time after so many."""
    step, value = job.send, None
    for number in count():
        try:
            waited_for = step(value)
        except StopIteration as over:
            return over.value
        if number == waits:
            asyncio.current_task().cancel()
        try:
            step, value = job.send, (yield waited_for)
        except BaseException as error:
            step, value = job.throw, error


async def serve_exchange(gateway, incoming):
    """Do what the listener does with an exchange."""
    reply = await gateway.gateway.proxy.handle(incoming)
    try:
        async for _ in reply.chunks:
            await asyncio.sleep(0)  # the chunk is written
        await reply.delivered()
    finally:
        reply.close()
        await reply.chunks.aclose()


async def approving(gateway):
    while True:
        [held] = await gateway.held()
        await gateway.review(held)


def leftovers(gateway):
    """Return everything that is in memory for exchanges, waits and runs."""
    proxy, service = gateway.gateway.proxy, gateway.gateway.service
    waits = proxy._held_answers._waits
    return [
        *proxy._exchange_limits._open, *service.presence.clients, *service.running, *service.wakeups.listening,
        *waits._waits, *waits._by_call, *waits.lingering, *gateway.gateway.forwarder._jobs,
        *proxy._held_answers._context.wheel._slots, *proxy._held_answers._context.checks.tasks,
    ]  # fmt: skip


@pytest.mark.parametrize("headers", [HEADERS, (*HEADERS, FRONT)], ids=["over HTTP", "a front of our own"])
@pytest.mark.parametrize("tool", ["get_note", "create_note"])
async def test_a_client_that_leaves_at_any_moment_leaves_nothing_behind_and_gets_one_run(
    tool, headers, tmp_path
):
    for waits in count():
        async with running(store=f"sqlite:///{tmp_path}/{waits}.db") as gateway, asyncio.timeout(HANG):
            body = json.dumps(call(tool, {"n": waits})).encode()
            incoming = Exchange(
                agent=LOCAL, server="notes", verb="POST", body=body, head=RequestHead(headers)
            )
            person = asyncio.ensure_future(approving(gateway))
            client = asyncio.ensure_future(leave_after(serve_exchange(gateway, incoming), waits))
            await asyncio.wait({client})
            if left := client.cancelled():
                assert text(await gateway.call(tool, {"n": waits})) == f"ran {tool}"
            while leftovers(gateway):
                await asyncio.sleep(0)
            person.cancel()
            if tool == "create_note":
                assert len(gateway.ran()) == len((await gateway.gateway.store.select()).items) == 1, waits
            if not left:
                assert client.result() is None
                assert waits > 5
                return


async def test_an_answer_to_a_request_that_was_cancelled_meanwhile_is_not_recorded_as_collected():
    async with running() as gateway, asyncio.timeout(HANG):
        frame = call("create_note")
        cancelled = {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": frame["id"]},
        }
        person = asyncio.ensure_future(approving(gateway))
        reply = await gateway.gateway.proxy.handle(exchange_of(frame))
        person.cancel()
        await serve_exchange(gateway, exchange_of(cancelled))
        async for _ in reply.chunks:
            pass
        await reply.delivered()
        [held] = (await gateway.gateway.store.select()).items
        assert (held.state, held.collected) == ("completed", False)


def exchange_of(frame):
    body = json.dumps(frame).encode()
    return Exchange(agent=LOCAL, server="notes", verb="POST", body=body, head=RequestHead(HEADERS))


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
@pytest.mark.parametrize("error", [LookupError, StoreError])
async def test_a_fault_while_a_client_waits_ends_its_wait_and_does_not_cancel_the_call(accept, error):
    async with running(more="approvals: {on_disconnect: cancel}") as gateway, asyncio.timeout(HANG):
        service, proxy = gateway.gateway.service, gateway.gateway.proxy

        waits = proxy._held_answers._learned_waits
        waits.record_abandoned(ClientKey(LOCAL.name, ""), 30.0, service.monotonic())

        async def fail(_):
            raise error

        frame = json.dumps(call("create_note")).encode()
        head = RequestHead((("content-type", "application/json"), ("accept", accept)))
        reader = ParkingReader(
            proxy.begin(Exchange(agent=LOCAL, server="notes", verb="POST", body=frame, head=head))
        )
        [held] = await gateway.held()
        while proxy._held_answers._context.checks.tasks or reader.parked is None:
            await asyncio.sleep(0)
        service.newest = fail
        service.wakeups.wake(held.id)
        while leftovers(gateway):
            await asyncio.sleep(0)
        del service.newest
        await asyncio.wait([reader.task])
        assert reader.responses[0]["error"]["code"] == -32603
        [learned] = waits._learned.values()
        assert not learned.retry_call  # the error is not the WAITING after which a client repeats its call
        assert (await service.get(held.id)).state == "pending"


@pytest.mark.parametrize("accept", ["application/json", "application/json, text/event-stream"])
async def test_a_client_whose_connection_ends_at_any_moment_leaves_nothing_behind_and_gets_one_run(accept):
    async with running() as gateway, asyncio.timeout(HANG):
        host, _, port = gateway.url.removeprefix("http://").removesuffix("/mcp/notes").partition(":")
        person = asyncio.ensure_future(approving(gateway))
        for turns in count():
            body = json.dumps(call("create_note", {"n": turns})).encode()
            head = (
                f"POST /mcp/notes HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode() + body)
            answer = asyncio.ensure_future(reader.readuntil(b"ran create_note"))
            for _ in range(turns):
                await asyncio.sleep(0)
            answered = answer.done()
            writer.transport.abort()
            await asyncio.wait([answer])
            answer.exception()
            if not answered:
                assert text(await gateway.call("create_note", {"n": turns})).endswith("ran create_note")
            while leftovers(gateway):
                await asyncio.sleep(0)
            assert len(gateway.ran()) == turns + 1
            if answered:
                assert turns > 20
                break
        person.cancel()
