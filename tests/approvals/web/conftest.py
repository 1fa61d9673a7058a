import pytest

from tests.fakes.inbox import Inbox


@pytest.fixture
async def inbox():
    async with Inbox() as running:
        yield running
