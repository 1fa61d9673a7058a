import asyncio

import pytest

from tests.fakes.inbox import Inbox


@pytest.fixture
async def inbox():
    async with asyncio.timeout(20), Inbox() as running:
        yield running
