"""An approved call runs once, and the store has the truth about it whatever the server does."""

import asyncio
import json

import pytest
from aiohttp import web

from approvals.errors import StoreError
from approvals.model import State
from approvals.replica import LEASE
from gateway.errors import ConnectionLostError
from gateway.upstreams import answers
from gateway.upstreams.reply import Reply
from gateways import TASKS, running, text
from hang import HANG
from recording_server import RecordingServer, result

WRITE = {"name": "create_note", "arguments": {}}


async def run(on_call, policy=None):
    """Hold, approve and run one call at a server with this behaviour; returns the answer and the row."""
    async with running(recorder=RecordingServer(on_call=on_call)) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            answer = await agent
        return answer, await gateway.gateway.service.get(held.id), len(gateway.ran())


async def good(_, frame):
    return result(frame, {"content": [{"type": "text", "text": "good"}]})


async def wrong_id(_, frame):
    return result({"id": 999}, {"content": []})


async def id_as_text(_, frame):
    return result({"id": str(frame["id"])}, {"content": []})


async def not_json(_, frame):
    return web.Response(text="<html>", content_type="application/json")


async def html(_, frame):
    return web.Response(text="<html>bad gateway", content_type="text/html", status=502)


async def nothing(_, frame):
    return web.Response(status=202)


async def duplicate_member(_, frame):
    return web.Response(
        body=b'{"jsonrpc":"2.0","id":1,"result":{},"result":{}}', content_type="application/json"
    )


async def reset(request, frame):
    request.transport.abort()
    return web.Response()


async def half(request, frame):
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"jsonrpc"')
    request.transport.abort()
    return response


def stream(*events):
    async def answer(request, frame):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            await response.write(event.replace("ID", json.dumps(frame["id"])).encode())
        await response.write_eof()
        return response

    return answer


FRAME = 'data: {"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"streamed"}]}}\n\n'
FOREIGN = 'data: {"jsonrpc":"2.0","id":77,"error":{"code":-1,"message":"not yours"}}\n\n'
LATER = 'data: {"jsonrpc":"2.0","id":ID,"error":{"code":-1,"message":"changed my mind"}}\n\n'


@pytest.mark.parametrize(
    "on_call",
    [
        wrong_id,
        id_as_text,
        not_json,
        html,
        nothing,
        duplicate_member,
        reset,
        half,
        stream(FOREIGN),
        stream(": x\n\n"),
    ],
)
async def test_without_a_matching_answer_the_call_is_in_doubt_and_never_sent_again(on_call):
    answer, held, ran = await run(on_call)
    assert (
        text(answer)
        == "The server gave no answer to this call. It MAY have run; a person has been notified. It will not be run again."
    )
    assert (held.state, ran) == (State.IN_DOUBT, 1)


async def test_a_repeat_of_a_call_in_doubt_does_not_run_it_again():
    async with running(recorder=RecordingServer(on_call=reset)) as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            await agent
        gateway.recorder.on_call = good
        assert "It MAY have run" in text(await gateway.call("create_note", id=2))
        assert len(gateway.ran()) == 1
        alice = gateway.gateway.service.directory.by_name("alice")
        await gateway.gateway.service.resolve(held.id, alice, "it did run", via="cli")
        assert "it did run" in text(await gateway.call("create_note", id=3))
        assert len(gateway.ran()) == 1


@pytest.mark.parametrize(
    "on_call", [good, stream(FRAME), stream(FOREIGN, FRAME, LATER), stream("event: message\nid: 4\n" + FRAME)]
)
async def test_the_first_answer_with_the_right_id_is_the_outcome(on_call):
    answer, held, _ = await run(on_call)
    assert text(answer) in ("good", "streamed")
    assert held.state is State.COMPLETED


async def test_the_servers_notifications_during_a_run_reach_the_client():
    progress = 'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"half way"}}\n\n'
    async with running(recorder=RecordingServer(on_call=stream(progress, FRAME))) as gateway:
        async with asyncio.TaskGroup() as tasks:
            from gateways import call

            agent = tasks.create_task(gateway.post(call("create_note")))
            [held] = await gateway.held()
            await gateway.review(held)
            body = await (await agent).read()
    assert b"half way" in body


#: The state of a call by the HTTP status of an answer that has no body, or one without an id.
BY_STATUS = {
    State.UPSTREAM_ERROR: [401, 403, 405, 413, 415, 421],
    State.IN_DOUBT: [
        200,
        202,
        204,
        301,
        302,
        307,
        400,
        404,
        406,
        408,
        409,
        410,
        425,
        429,
        499,
        500,
        502,
        503,
        504,
    ],
}
STATUSES = [(status, state) for state, found in BY_STATUS.items() for status in found]


def answering(status, **body):
    """A server that answers with this status, and with a frame of these members if there are any."""

    async def answer(_, frame):
        own = {name: frame["id"] if value == "own" else value for name, value in body.items()}
        return web.json_response(own, status=status) if body else web.Response(status=status)

    return answer


FAULT = {"error": {"code": -32000, "message": "no"}}


@pytest.mark.parametrize(("status", "state"), STATUSES)
async def test_without_an_answer_only_a_status_that_rules_out_a_run_is_a_refusal(status, state):
    answer, held, ran = await run(answering(status))
    assert (held.state, ran) == (state, 1)
    if state is State.UPSTREAM_ERROR:
        assert answer["error"]["message"] == f"The server refused the call with HTTP {status}."
        _, held, _ = await run(answering(status, error="invalid_token"))
        assert held.state is State.UPSTREAM_ERROR
        _, held, _ = await run(answering(status, jsonrpc="2.0", id=None, **FAULT))
        assert held.state is State.UPSTREAM_ERROR


@pytest.mark.parametrize(("status", "_"), [entry for entry in STATUSES if entry[0] not in {202, 204}])
async def test_a_response_with_the_calls_id_is_the_outcome_whatever_its_status(status, _):
    _, held, _ = await run(answering(status, jsonrpc="2.0", id="own", result={"content": []}))
    assert held.state is State.COMPLETED
    _, held, _ = await run(answering(status, jsonrpc="2.0", id="own", **FAULT))
    assert (held.state, b"-32000" in held.outcome.body) == (State.UPSTREAM_ERROR, True)


@pytest.mark.parametrize("status", [200, 400, *BY_STATUS[State.UPSTREAM_ERROR]])
@pytest.mark.parametrize("body", [{"result": {}}, FAULT])
async def test_a_response_with_another_id_leaves_doubt_whatever_its_status(status, body):
    _, held, _ = await run(answering(status, jsonrpc="2.0", id=999, **body))
    assert held.state is State.IN_DOUBT


async def test_a_refusal_to_resume_a_stream_does_not_settle_the_call():
    recorder = RecordingServer(on_call=stream("id: 4\nretry: 0\ndata: \n\n"), on_get=answering(403))
    async with running(recorder=recorder) as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        assert "It MAY have run" in text(await agent)


async def test_an_unreachable_server_leaves_the_call_not_sent():
    async with running() as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.recorder.runner.cleanup()
            await gateway.review(held)
            answer = await agent
        assert text(answer).startswith("The server could not be reached")
        assert (await gateway.gateway.service.get(held.id)).state is State.NOT_SENT


async def test_a_fault_in_the_gateway_leaves_the_call_in_doubt():
    class Broken:
        async def send(self, *_):
            raise RuntimeError("a bug")

    async with running() as gateway:
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            gateway.gateway.proxy.settings.upstreams["notes"].send = Broken().send
            await gateway.review(held)
            assert "It MAY have run" in text(await agent)


@pytest.mark.parametrize("modern", [True, False])
async def test_on_a_full_disk_an_approved_calls_client_is_answered_at_the_end_of_its_wait(modern):
    async with running(more="approvals: {hold_for: 20s}") as gateway, asyncio.TaskGroup() as tasks:
        service, tried = gateway.gateway.service, asyncio.Event()

        class Full(type(service.store)):
            async def swap(self, old, new, *events):
                if new.state is State.FORWARDING:
                    tried.set()
                    raise StoreError("The disk is full.")
                await super().swap(old, new, *events)

        service.store.__class__ = Full
        asked = gateway.ask("tools/call", WRITE) if modern else gateway.call("create_note")
        agent = tasks.create_task(asked)
        [held] = await gateway.held()
        await gateway.review(held)
        for seconds in (10, 11):
            async with asyncio.timeout(HANG):
                await tried.wait()
            await gateway.pass_time(seconds)
            tried.clear()
        async with asyncio.timeout(HANG):
            answer = await agent
        told = answer.result["resultType"] if modern else text(answer)
        assert told.startswith("input_required" if modern else "WAITING: this call")
        assert gateway.ran() == []


@pytest.mark.parametrize("declares", [{}, TASKS])
async def test_a_failed_claim_is_retried_only_at_the_next_beat(declares, caplog):
    async with running() as gateway, asyncio.TaskGroup() as tasks:
        service, tried = gateway.gateway.service, []

        class Full(type(service.store)):
            async def swap(self, old, new, *events):
                if new.state is State.FORWARDING and len(tried) < 5:
                    tried.append(new)
                    raise StoreError("The disk is full.")
                await super().swap(old, new, *events)

        service.store.__class__ = Full
        agent = tasks.create_task(gateway.ask("tools/call", WRITE, declares=declares))
        [held] = await gateway.held()
        held = await gateway.review(held)
        async with asyncio.timeout(HANG):
            while not tried:
                await asyncio.sleep(0)
        for _ in range(200):  # a loop without a pause would make all its attempts in these turns
            await asyncio.sleep(0)
        assert len(tried) == 1
        assert caplog.messages == [f"{held.id} could not be claimed or finished: The disk is full."]
        tried *= 5  # the disk has space again
        service.wakeups.wake(held.id)
        async with asyncio.timeout(HANG):
            while held.settled_at is None:
                held = await service.wait_for_change(held, 5)
        assert (held.state, len(gateway.ran())) == (State.COMPLETED, 1)
        await agent


async def test_running_calls_get_time_to_end_when_the_gateway_stops():
    release, arrived = asyncio.Event(), asyncio.Event()

    async def slow(_, frame):
        arrived.set()
        await release.wait()
        return await good(_, frame)

    async with running(recorder=RecordingServer(on_call=slow)) as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        await arrived.wait()
        ending = asyncio.ensure_future(gateway.gateway.forwarder.finish(5))
        await asyncio.sleep(0)
        release.set()
        await ending
        assert (await gateway.gateway.service.get(held.id)).state is State.COMPLETED
        await agent


async def test_a_run_that_does_not_end_in_time_leaves_the_call_in_doubt():
    arrived = asyncio.Event()

    async def never(_, frame):
        arrived.set()
        await asyncio.Event().wait()

    async with running(recorder=RecordingServer(on_call=never)) as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        await arrived.wait()
        await gateway.gateway.forwarder.finish(0.01)
        assert "It MAY have run" in text(await agent)
        assert (await gateway.gateway.service.get(held.id)).state is State.IN_DOUBT


async def test_a_run_that_is_cancelled_again_while_it_is_put_in_doubt_is_in_doubt():
    arrived, writing, disk = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def never(_, frame):
        arrived.set()
        await asyncio.Event().wait()

    async with running(recorder=RecordingServer(on_call=never)) as gateway:
        service, forwarder = gateway.gateway.service, gateway.gateway.forwarder

        class Slow(type(service.store)):
            async def swap(self, old, new, *events):
                if new.state is State.IN_DOUBT:
                    writing.set()
                    await disk.wait()
                await super().swap(old, new, *events)

        service.store.__class__ = Slow
        agent = asyncio.ensure_future(gateway.call("create_note"))
        [held] = await gateway.held()
        await gateway.review(held)
        await arrived.wait()
        await forwarder.finish(0)
        async with asyncio.timeout(HANG):
            await writing.wait()
        await forwarder.finish(0)
        disk.set()
        async with asyncio.timeout(HANG):
            assert "It MAY have run" in text(await agent)
        assert (await service.get(held.id)).state is State.IN_DOUBT


async def test_an_answer_that_is_too_large_leaves_the_call_in_doubt():
    async def endless():
        while True:
            yield b"x" * (1 << 20)

    closed = []
    reply = Reply(
        status=200,
        headers={"content-type": "application/json"},
        chunks=endless(),
        close=lambda: closed.append(1),
    )
    with pytest.raises(ConnectionLostError):
        await answers.read_outcome(reply, 1, lambda _: None)
    assert closed == [1]


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize("value", ["x", None, [], 5, True])
@pytest.mark.parametrize("member", ["result", "error"])
async def test_a_result_or_error_that_is_not_an_object_leaves_the_call_in_doubt(member, value, modern):
    async def odd(_, frame):
        return web.json_response({"jsonrpc": "2.0", "id": frame["id"], member: value})

    async with asyncio.timeout(HANG), running(recorder=RecordingServer(on_call=odd)) as gateway:
        asked = gateway.ask("tools/call", WRITE) if modern else gateway.call("create_note")
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(asked)
            [held] = await gateway.held()
            await gateway.review(held)
        frame = agent.result().frames[-1] if modern else agent.result()
        assert "It MAY have run" in text(frame)
        assert (await gateway.gateway.service.get(held.id)).state is State.IN_DOUBT
        assert not gateway.gateway.service.running


async def test_a_call_claimed_before_a_suspension_is_not_sent_after_it():
    async with running() as gateway:
        service, swap = gateway.gateway.service, gateway.gateway.store.swap

        async def suspended_after_claim(old, new, *events):
            await swap(old, new, *events)
            if new.state is State.FORWARDING:
                gateway.clock.now += LEASE
                await service.replica.renew()  # the sweep may be the first to run again

        gateway.gateway.store.swap = suspended_after_claim
        async with asyncio.TaskGroup() as tasks:
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            await gateway.review(held)
            answer = await agent
        assert gateway.ran() == []
        assert (await service.get(held.id)).state is State.NOT_SENT
        assert "suspended" in json.dumps(answer)
