"""Two gateways on one store, with one limiter."""

import asyncio

import pytest

from gateway.call.limiter import WindowLimiter
from gateways import text
from two_gateways import OPENERS, two_gateways

TEN = "default: allow\ntools: {get_note: {rate_limit: {max: 10, window: 60}}}"
REFUSED = "Rate limit: 10 calls per 60 s"


@pytest.fixture(params=OPENERS.values(), ids=OPENERS.keys())
async def gateways(request, tmp_path):
    store = await request.param(tmp_path)
    limiter = await WindowLimiter.load(store, 0.0)
    async with two_gateways(store, TEN, limiter=limiter) as both:
        yield both


async def test_two_gateways_that_share_a_limiter_let_ten_calls_through_together(gateways):
    answers = await asyncio.gather(*(one.call("get_note") for _ in range(10) for one in gateways))
    assert len([answer for answer in answers if text(answer).startswith(REFUSED)]) == 10
    a, _ = gateways
    assert len(a.ran()) == len(await a.gateway.store.hits(a.clock.now)) == 10


async def test_a_limit_used_up_at_one_gateway_is_used_up_at_the_other_and_after_a_restart(gateways):
    a, b = gateways
    for _ in range(10):
        await a.call("get_note")
    assert text(await b.call("get_note")).startswith(REFUSED)
    b.gateway.proxy._limiter = await WindowLimiter.load(b.gateway.store, b.clock.now)
    assert text(await b.call("get_note")).startswith(REFUSED)
    assert len(a.ran()) == 10
