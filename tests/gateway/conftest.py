"""A gateway in front of a recording server, for every test that asks for one."""

import pytest

from gateways import running


@pytest.fixture
async def gateway():
    async with running() as ready:
        yield ready
