"""Webhooks to a real receiver, verified with the Standard Webhooks library."""

import asyncio
import json

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from approval_fixtures import Clock, directory, held
from approvals.channels.webhook import WebhookChannel
from approvals.model import Decision
from approvals.notices import Notices
from approvals.presence import MIN_ATTENDED
from approvals.service import ApprovalService
from approvals.store.memory.store import MemoryStore

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    def __init__(self):
        self.got = []
        self.status = 204

    async def take(self, request):
        self.got.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def world():
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    import time

    clock = Clock()
    clock.now = time.time()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    service = ApprovalService(MemoryStore(), directory(), clock=clock)
    channel = WebhookChannel(name="webhook:1", url=receiver.url, secret=SECRET, clock=clock)
    await channel.start(service)
    yield receiver, service, Notices(service, service.store, [channel], url="https://a.example"), clock
    await channel.close()
    await runner.cleanup()


async def test_each_change_is_posted_signed_and_without_arguments(world):
    receiver, service, notices, clock = world
    call = await service.hold(
        held(clock.now, arguments=b'{"note": "between us"}', extra_params=b'{"_meta": {"a": "between us"}}')
    )
    await notices.bring_up_to_date()
    await service.review(
        call.id, service.directory.by_name("alice"), Decision.APPROVE, via="inbox", digest=call.digest
    )
    await notices.bring_up_to_date()
    told = [Webhook(SECRET).verify(body, headers) for headers, body in receiver.got]
    assert [one["data"]["state"] for one in told] == ["pending", "approved"]
    assert told[0]["data"]["url"] == f"https://a.example/calls/{call.id}"
    assert "between us" not in json.dumps(told)


async def test_two_replicas_send_each_change_once(world):
    receiver, service, notices, clock = world
    other = ApprovalService(service.store, directory(), clock=clock)
    channel = WebhookChannel(name="webhook:1", url=receiver.url, secret=SECRET, clock=clock)
    await channel.start(other)
    both = [notices, Notices(other, other.store, [channel], url="https://a.example")]
    call = await other.hold(held(clock.now))
    await asyncio.gather(*(each.bring_up_to_date() for each in both))
    await service.cancel(call.id, "the agent left", actor="ci-bot")
    await asyncio.gather(*(each.bring_up_to_date() for each in both))
    assert [json.loads(body)["data"]["state"] for _, body in receiver.got] == ["pending", "cancelled"]
    await channel.close()


async def test_a_client_that_leaves_sends_nothing_and_the_next_change_says_so(world):
    receiver, service, notices, clock = world
    call = await service.hold(held(clock.now, needed=2))
    for _ in range(5):
        await service.sweep()
        await notices.bring_up_to_date()
        clock.now += MIN_ATTENDED
    await service.review(
        call.id, service.directory.by_name("alice"), Decision.APPROVE, via="inbox", digest=call.digest
    )
    await notices.bring_up_to_date()
    assert [json.loads(body)["data"]["attended"] for _, body in receiver.got] == [True, False]


async def test_a_failed_delivery_is_retried_later(world):
    receiver, service, notices, clock = world
    receiver.status = 500
    await service.hold(held(clock.now))
    await notices.bring_up_to_date()
    await notices.bring_up_to_date()
    assert len(receiver.got) == 1  # the retry is not due yet
    receiver.status = 200
    clock.now += 5
    await notices.bring_up_to_date()
    await notices.bring_up_to_date()
    assert len(receiver.got) == 2


async def test_a_redirect_is_not_followed(world):
    receiver, service, notices, clock = world
    receiver.status = 307
    call = await service.hold(held(clock.now))
    await notices.bring_up_to_date()
    [(stale, notice)] = await service.store.stale_calls("webhook:1", clock.now + 100)
    assert (stale.id, notice.failures) == (call.id, 1)
