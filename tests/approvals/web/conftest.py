import pytest

from inbox import Inbox


@pytest.fixture
async def inbox():
    async with Inbox() as running:
        yield running
