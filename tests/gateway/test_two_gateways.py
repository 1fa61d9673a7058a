"""Two gateways on one store act as one: each hears of every change that the other makes."""

import asyncio

import pytest

from gateways import text
from two_gateways import OPENERS, two_gateways


@pytest.fixture(params=OPENERS.values(), ids=OPENERS.keys())
async def gateways(request, tmp_path):
    async with two_gateways(await request.param(tmp_path)) as both:
        yield both


async def test_an_approval_at_one_gateway_wakes_the_client_at_the_other(gateways):
    a, b = gateways
    async with asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(a.call("create_note"))
        [held] = await b.held()
        await b.review(held)
        assert text(await agent) == "ran create_note"
    assert len(a.ran()) == 1
