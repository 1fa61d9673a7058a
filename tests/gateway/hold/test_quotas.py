"""Quotas on the memory and the storage of held calls, per agent and in total."""

import asyncio
import hashlib
import json

import pytest

from gateway.app.config import parse_config
from gateway.app.gateway import assemble, measure_disk_use
from gateway.auth.agents import LOCAL
from gateway.call.request import Exchange, RequestHead
from gateway.config.problems import ConfigProblems
from gateway.upstreams.reply import read_body
from gateways import Clock, call, running, text
from recording_server import RecordingServer
from rows import each_row

AGENTS = "".join(
    f"  - {{name: {name}, token_sha256: {hashlib.sha256(name.encode() * 16).hexdigest()}}}\n"
    for name in ("ann", "bob")
)
PATIENCE = "approvals: {hold_for: 0.001s}\n"
TEXT = "x" * (100 << 10)


def limits(**given):
    listed = ", ".join(f"{name}: {value}" for name, value in given.items())
    return f"{PATIENCE}limits: {{{listed}}}\nagents:\n{AGENTS}"


def as_agent(name):
    return {"Authorization": f"Bearer {name * 16}"}


async def held(gateway, n, size=TEXT, agent="ann"):
    """Send a call that is held, and return the text that its agent gets."""
    calling = asyncio.ensure_future(
        gateway.call("create_note", {"n": n, "text": size}, id=n, headers=as_agent(agent))
    )
    while not calling.done():
        gateway.clock.now += 0.001
        gateway.gateway.service.wakeups.wake_all()
        await asyncio.sleep(0)
    return text(await calling)


async def test_calls_that_use_too_much_storage_are_not_held():
    async with running(more=limits(bytes_per_agent="300KB", bytes="400KB")) as gateway:
        for n in range(2):
            assert (await held(gateway, n)).startswith("WAITING")
        assert await held(gateway, 2) == (
            "Your waiting calls use too much storage. NOT EXECUTED. Wait for their answers first, or send less."
        )
        assert (await held(gateway, 3, size="")).startswith("WAITING")
        assert (await held(gateway, 4, agent="bob")).startswith("WAITING")
        assert await held(gateway, 5, agent="bob") == (
            "The waiting calls of all agents use too much storage. NOT EXECUTED. Try again later, or send less."
        )
        assert len(await gateway.gateway.service.open_calls()) == 4
        assert gateway.ran() == []


async def test_params_beside_the_arguments_count_against_the_quota():
    async with running(more=limits(bytes_per_agent="300KB")) as gateway:
        body = call("create_note", {}, _meta={"note": TEXT + TEXT})
        async with await gateway.post(body, as_agent("ann")) as answer:
            assert "Your waiting calls use too much storage." in await answer.text()


async def test_the_limits_on_open_calls_are_in_the_config():
    async with running(more=limits(open_per_agent=1, open=2)) as gateway:
        assert (await held(gateway, 1)).startswith("WAITING")
        assert (await held(gateway, 2)).startswith("Too many of your calls already wait")
        assert (await held(gateway, 3, agent="bob")).startswith("WAITING")
    plain = parse_config("servers: {a: {url: 'http://127.0.0.1'}}\npolicy: {default: deny}", {}, str).limits
    assert (plain.open, plain.open_per_agent) == (10_000, 100)


async def test_repeated_holds_and_cancels_are_stopped_for_an_hour_even_after_a_restart(tmp_path):
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: sqlite:///{tmp_path}/store.db\napprovers: [{{name: alice}}]\n"
            f"limits: {{bytes_per_agent_hour: 220KB}}\npolicy: {{default: require_approval}}\n",
            {},
            str,
        )
        clock = Clock()
        async with assemble(config, clock) as gateway:
            assert "Cancelled: no more." in await hold_and_cancel(gateway, 1)
            clock.now += 1800
            assert "Cancelled: no more." in await hold_and_cancel(gateway, 2)
        async with assemble(config, clock) as gateway:
            clock.now += 1700
            assert "Your calls of the last hour use too much storage." in await hold_and_cancel(gateway, 3)
            clock.now += 101
            assert "Cancelled: no more." in await hold_and_cancel(gateway, 4)


async def hold_and_cancel(gateway, n):
    body = json.dumps(call("create_note", {"n": n, "text": TEXT})).encode()
    pairs = (("accept", "application/json"),)
    incoming = Exchange(agent=LOCAL, server="notes", verb="POST", body=body, head=RequestHead(pairs))
    answering = asyncio.ensure_future(answered(gateway, incoming))
    while not (there := await gateway.service.open_calls()) and not answering.done():
        await asyncio.sleep(0)
    for one in there:
        await gateway.service.cancel(one.id, "no more", actor="local")
    gateway.service.wakeups.wake_all()
    return await answering


async def answered(gateway, incoming):
    reply = await gateway.proxy.handle(incoming)
    return (await read_body(reply)).decode()


@pytest.mark.parametrize(
    "used, ready", [(0.849, None), (0.85, "store: its disk is 85% full; free some space")]
)
async def test_a_nearly_full_disk_shows_in_readiness_and_metrics(tmp_path, used, ready):
    async with RecordingServer() as recorder:
        config = parse_config(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: sqlite:///{tmp_path}/store.db\npolicy: {{default: deny}}\n",
            {},
            str,
        )
        asked = []
        async with assemble(config, disk=lambda folder: asked.append(folder) or used) as gateway:
            await gateway.refresh_tools()
            assert await gateway.readiness_problem() == ready
            text_, _ = gateway.metrics.exposition()
            assert f"okayed_store_disk_used_ratio {used}".encode() in text_
        assert set(asked) == {tmp_path}
        assert 0 < measure_disk_use(tmp_path) < 1


@each_row("given", ["'16 apples'", "0", "-1", "1.5MB", "''"])
def test_an_invalid_size_is_refused(given):
    with pytest.raises(ConfigProblems, match="is not a size; write bytes, or 64KB, 16MB, 1GB"):
        parse_config(
            f"servers: {{a: {{url: 'http://127.0.0.1'}}}}\npolicy: {{default: deny}}\nlimits: {{bytes: {given}}}",
            {},
            str,
        )
