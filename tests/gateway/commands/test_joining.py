"""The stdio command: whose agent it is."""

import pytest

from gateway.commands.joining import _agent
from gateway.errors import UserError
from gateways import running
from process import sha256


async def test_the_stdio_command_is_the_agent_of_its_token():
    async with running(more=f"agents: [{{name: ci, token_sha256: {sha256('ci-token')}}}]") as gateway:
        assert (await _agent(gateway.gateway, "ci-token", "notes")).name == "ci"
        with pytest.raises(UserError, match="HOLDPOINT_AGENT_TOKEN"):
            await _agent(gateway.gateway, "other", "notes")


async def test_without_agents_it_needs_no_token():
    async with running() as gateway:
        assert (await _agent(gateway.gateway, "", "notes")).name == "local"
