"""The same call asked again after a person has denied it: the same words, and nobody is asked."""

import asyncio

import pytest
from msgspec.structs import replace

from approvals.model import Answer
from gateways import call, last_frame, running, text

SAID = "Denied by alice: not in prod. NOT EXECUTED. Asking again will not change this."
AGENTS = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""


async def deny(gateway, arguments=None, **headers):
    """Call the tool, let alice deny it, and return what the agent reads."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note", arguments, headers=headers))
        [held] = await gateway.held()
        await gateway.review(held, Answer.DENY, "not in prod")
        return text(await agent)


async def ask(gateway, arguments=None, **headers):
    """Call the tool again and return what the agent reads at once."""
    async with asyncio.timeout(5), await gateway.post(call("create_note", arguments), headers) as answer:
        return text(last_frame(await answer.read()))


async def test_a_denial_answers_the_same_call_asked_again_and_nobody_is_asked():
    async with running() as gateway:
        assert await deny(gateway) == SAID
        for _ in range(5):
            gateway.clock.now += 3
            assert await ask(gateway) == SAID
        assert len(await gateway.gateway.store.select()) == 1
        assert gateway.ran() == []


async def test_that_a_denial_answered_again_is_written_down_once_a_minute():
    async with running() as gateway:
        await deny(gateway)
        for _ in range(13):
            await ask(gateway)
            gateway.clock.now += 10
        again = [one for one in await gateway.gateway.store.events() if one.kind == "call.denied"]
        [held] = await gateway.gateway.store.select()
        assert [one.at - again[0].at for one in again] == [0, 60, 120]
        assert again[0].detail == {"rule": "default", "denial": held.id, "by": "alice"}


@pytest.mark.parametrize(
    ("options", "seconds"), [("", 600), ("approvals: {remember_denials: 1m}", 60), ("approvals: {remember_denials: 0}", 0)],
)  # fmt: skip
async def test_after_its_time_a_denied_call_is_a_new_question_to_people(options, seconds):
    async with running(more=options) as gateway:
        said = await deny(gateway)
        assert said.endswith("Asking again will not change this.") is bool(seconds)
        gateway.clock.now += seconds
        await deny(gateway)
        assert len(await gateway.gateway.store.select()) == 2


async def test_a_denial_answers_that_very_call_of_that_agent_only():
    async with running(more=AGENTS) as gateway:
        one, two = {"Authorization": "Bearer one"}, {"Authorization": "Bearer two"}
        await deny(gateway, {"a": 1}, **one)
        assert await ask(gateway, {"a": 1}, **one) == SAID
        await deny(gateway, {"a": 2}, **one)
        await deny(gateway, {"a": 1}, **two)
        assert len(await gateway.gateway.store.select()) == 3


async def test_a_denial_ends_when_the_policy_changes():
    async with running() as gateway:
        await deny(gateway)
        config = gateway.gateway.config
        stricter = replace(config.policy, hide=["admin_*"])
        await gateway.gateway.adopt(replace(config, policy=stricter))
        await deny(gateway)
        assert len(await gateway.gateway.store.select()) == 2


async def test_a_denial_ends_when_the_definition_of_the_tool_changes():
    async with running(more="pin: warn") as gateway:
        await deny(gateway)
        gateway.recorder.tools[:] = [
            {**tool, "description": "Make a note anywhere."} for tool in gateway.recorder.tools
        ]
        gateway.gateway.catalogue.outdate("notes")
        await deny(gateway)
        assert len(await gateway.gateway.store.select()) == 2


async def test_a_denied_call_over_its_limit_stays_denied_and_costs_no_use_of_the_limit():
    policy = "default: allow\ntools: {create_note: {rate_limit: {max: 1, window: 60, on_exceed: require_approval}}}"
    async with running(policy) as gateway:
        await ask(gateway, {"n": 0})
        await deny(gateway)
        gateway.clock.now += 120
        assert await ask(gateway) == SAID
        assert await ask(gateway, {"n": 1}) == "ran create_note"
