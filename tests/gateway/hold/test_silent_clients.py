"""A client that times out silently and repeats the call gets one hold, one prompt, one run and the answer."""

import asyncio

import pytest

from approvals.model import Decision
from gateways import running, text
from hang import HANG
from recording_server import RecordingServer, result
from silent_client import SilentClient

LONG = "approvals: {expire_after: 1h, approved_for: 1h}"
WAITING = "WAITING: a person has to approve this call"


async def soon(answer):
    async with asyncio.timeout(HANG):
        return text(await answer)


@pytest.mark.parametrize("connects", ["without sessions", "in one session", "in a new session each time"])
async def test_an_abandoned_and_repeated_call_is_one_hold_one_run_and_one_answer(
    connects,
):
    async with running(more=LONG) as gateway:
        client = SilentClient(gateway)
        if connects == "in one session":
            await client.connect("s0")
        for attempt in range(5):
            if connects == "in a new session each time":
                await client.connect(f"s{attempt}")
            last = await client.ask()
            for older in client.answers[:-1]:
                assert (await soon(older)).startswith(WAITING)
            if attempt < 4:
                await client.give_up()
        [held] = await gateway.held()
        await gateway.review(held)
        assert await soon(last) == "ran create_note"
        kinds = await gateway.kinds()
        assert (
            len(gateway.ran())
            == len((await gateway.gateway.store.select()).items)
            == kinds.count("hold.pending")
            == 1
        )
        assert kinds.count("hold.collected") == 1


async def test_a_client_that_timed_out_silently_then_gets_waiting_before_its_timeout():
    async with running(more=LONG) as gateway:
        client = SilentClient(gateway)
        await client.ask()
        await client.give_up()
        again = await client.ask()
        await gateway.pass_time(2.4)
        assert not again.done()
        await gateway.pass_time(0.1)
        assert (await soon(again)).startswith(WAITING)
        other = SilentClient(gateway, arguments={"a": 2})
        first = await other.ask()
        await gateway.pass_time(2.5)
        assert (await soon(first)).startswith(WAITING)


@pytest.mark.parametrize("tells", ["hangs up", "cancels"])
async def test_a_client_that_cancels_at_its_timeout_then_gets_waiting_before_it(tells):
    async with running(more=LONG) as gateway:
        client = SilentClient(gateway)
        await client.connect("s0")
        answer = await client.ask()
        [held] = await gateway.held()
        await client.give_up()
        if tells == "hangs up":
            answer.cancel()
        else:
            await client.cancel()
        while held.id in gateway.gateway.service.presence.clients:
            await asyncio.sleep(0)
        await client.give_up(after=60.0)  # the model thinks
        again = await client.ask()
        await gateway.pass_time(2.4)
        assert not again.done()
        await gateway.pass_time(0.1)
        assert (await soon(again)).startswith(WAITING)


async def test_a_client_with_one_timeout_for_all_rounds_gets_waiting_instead_of_a_round():
    async with running(more=LONG) as gateway:
        note = {"name": "create_note", "arguments": {"a": 1}}
        first = asyncio.ensure_future(gateway.ask("tools/call", note))
        [held] = await gateway.held()
        gateway.clock.now += 5
        first.cancel()
        while held.id in gateway.gateway.service.presence.clients:
            await asyncio.sleep(0)
        again = asyncio.ensure_future(gateway.ask("tools/call", note))
        while held.id not in gateway.gateway.service.presence.clients:
            await asyncio.sleep(0)
        await gateway.pass_time(2.5)
        assert text((await again).frames[-1]).startswith(WAITING)


async def test_another_agents_patient_client_of_the_same_name_waits_as_before():
    agents = """
agents:
  - {name: one, token_sha256: 7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed}
  - {name: two, token_sha256: 3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3}
"""
    async with running(more=LONG + agents) as gateway:
        hasty = SilentClient(gateway, headers={"Authorization": "Bearer one"})
        await hasty.ask()
        await hasty.give_up()
        await hasty.ask()
        patient = SilentClient(gateway, headers={"Authorization": "Bearer two"})
        answer = await patient.ask()
        await gateway.pass_time(49)
        assert (await soon(hasty.answers[-1])).startswith(WAITING)
        assert not answer.done()
        answer.cancel()


async def test_two_programs_with_the_same_call_at_once_both_get_the_answer():
    async with running(more=LONG) as gateway:
        client = SilentClient(gateway)
        await client.ask()
        await client.give_up(after=1.9)
        await client.ask()
        [held] = await gateway.held()
        await gateway.review(held)
        assert [await soon(answer) for answer in client.answers] == ["ran create_note"] * 2
        assert len(gateway.ran()) == 1


async def test_at_most_eight_requests_wait_for_a_call_and_the_oldest_gets_waiting():
    """Each keeps its own copy of the call in memory, and only the call itself is counted against its agent."""
    async with running(more=LONG) as gateway:
        programs = [SilentClient(gateway, name=f"program {number}") for number in range(10)]
        for number, program in enumerate(programs):
            await program.connect(f"s{number}")
            await program.ask()
        for crowded_out in programs[:2]:
            assert (await soon(crowded_out.answers[0])).startswith(WAITING)
        [held] = await gateway.held()
        await gateway.review(held)
        assert [await soon(one.answers[0]) for one in programs[2:]] == ["ran create_note"] * 8
        assert len(gateway.ran()) == 1


async def test_a_client_that_repeats_a_running_call_gets_the_answer_on_its_newest_request():
    may_end = asyncio.Event()

    async def slow(_, frame):
        await may_end.wait()
        return result(frame, {"content": [{"type": "text", "text": "ran slowly"}]})

    async with running(more=LONG, recorder=RecordingServer(on_call=slow)) as gateway:
        client = SilentClient(gateway)
        older = await client.ask()
        [held] = await gateway.held()
        await gateway.review(held)
        await gateway.recorder.called()
        await client.give_up()
        newest = await client.ask()
        assert (await soon(older)).startswith("RUNNING: this call")
        may_end.set()
        assert await soon(newest) == "ran slowly"
        assert len(gateway.ran()) == 1


async def test_an_abandoned_request_neither_runs_the_call_nor_collects_its_answer():
    async with running(more=LONG) as gateway:
        client = SilentClient(gateway)
        older = await client.ask()
        [held] = await gateway.held()
        await client.give_up()
        newest = await client.ask()
        assert (await soon(older)).startswith(WAITING)
        newest.cancel()
        while held.id in gateway.gateway.service.presence.clients:
            await asyncio.sleep(0)
        await gateway.review(held)
        assert gateway.ran() == []
        assert not (await gateway.gateway.service.get(held.id)).collected
        assert await soon(await client.ask()) == "ran create_note"


async def test_with_on_disconnect_cancel_a_client_that_repeats_has_not_left():
    async with running(more="approvals: {expire_after: 1h, on_disconnect: cancel}") as gateway:
        client = SilentClient(gateway)
        older = await client.ask()
        [held] = await gateway.held()
        await client.give_up()
        newest = await client.ask()
        assert (await soon(older)).startswith(WAITING)
        await gateway.review(held, Decision.DENY, "no")
        assert (await soon(newest)).startswith("Denied by alice: no.")


@pytest.mark.parametrize(
    "options", ["approvals: {hold_for: 20s}", "approvals: {clients: {'mcp': {wait: 20s}}}", "approvals: {clients: {'mcp': 20s}}"],
)  # fmt: skip
async def test_a_configured_wait_is_not_shortened(options):
    async with running(more=options) as gateway:
        client = SilentClient(gateway)
        await client.connect("s0")
        await client.ask()
        await client.give_up()
        newest = await client.ask()
        assert (await soon(client.answers[0])).startswith(WAITING)
        await gateway.pass_time(19)
        assert not newest.done()
        await gateway.pass_time(1)
        assert (await soon(newest)).startswith(WAITING)


async def test_clients_that_stop_at_an_error_get_waiting_as_a_result():
    schema = {"type": "object", "properties": {"id": {"type": "string"}}}
    tools = [
        {"name": "create_note", "inputSchema": {"type": "object"}},
        {"name": "add_note", "inputSchema": {"type": "object"}, "outputSchema": schema},
    ]
    options = "approvals: {clients: {'mcp': {wait: 1s, waiting: result}}}"
    async with running(more=options, recorder=RecordingServer(tools=tools)) as gateway:
        client = SilentClient(gateway)
        await client.connect("s0")
        said = {}
        for name in ("create_note", "add_note"):
            answer = asyncio.ensure_future(gateway.call(name, headers=client.headers))
            await gateway.held(len(said) + 1)
            await gateway.pass_time(1)
            said[name] = (await answer)["result"]
        assert all(one["content"][0]["text"].startswith(WAITING) for one in said.values())
        assert {name: one["isError"] for name, one in said.items()} == {
            "create_note": False,
            "add_note": True,
        }
        # A denial stays an error.
        [held, _] = await gateway.held(2)
        answer = asyncio.ensure_future(gateway.call("create_note", headers=client.headers))
        await gateway.review(held, Decision.DENY, "no")
        assert (await answer)["result"]["isError"] is True
