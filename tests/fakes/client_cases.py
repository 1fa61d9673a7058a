"""Test cases for real clients, and the clients that each case applies to."""

import asyncio

import pytest

from real_clients import ClientScript, Testbed


async def allowed(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    outcome = await testbed.call(client, transport, note, tool="get_note")
    assert outcome == (f"done: {note}", False, "")
    assert testbed.ran(note) == 1


async def held_then_approved(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(testbed.call(client, transport, note))
        await testbed.decide(note)
    assert calling.result() == (f"done: {note}", False, "")
    assert testbed.ran(note) == 1


async def held_then_denied(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(testbed.call(client, transport, note))
        await testbed.decide(note, "deny", reason="use the staging account")
    assert calling.result() == (
        "Denied by alice: use the staging account. NOT EXECUTED. Asking again will not change this.",
        True,
        "",
    )
    assert testbed.ran(note) == 0


async def waiting_then_collected(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    outcome = await testbed.call(client, transport, note, gateway="brief")
    assert outcome.text.startswith("WAITING: a person has to approve this call (hold_")
    assert (outcome.is_error, outcome.failed) == (True, "")
    await testbed.decide(note, gateway="brief")
    assert testbed.ran(note) == 0
    outcome = await testbed.call(client, transport, note, gateway="brief")
    assert outcome == (f"done: {note}", False, "")
    assert testbed.ran(note) == 1


async def given_up_then_collected(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    outcome = await testbed.call(client, transport, note, seconds=1)
    assert outcome.failed
    await testbed.until(note, lambda call: not call["attended"])
    await testbed.decide(note)
    assert testbed.ran(note) == 0
    outcome = await testbed.call(client, transport, note)
    assert outcome == (f"done: {note}", False, "")
    assert testbed.ran(note) == 1


async def given_up_in_silence(testbed: Testbed, client: ClientScript, transport: str) -> None:
    note = testbed.note()
    outcome = await testbed.call(client, transport, note, seconds=1)
    assert outcome.failed
    await testbed.decide(note)
    await testbed.until(note, lambda call: call["collected"])
    assert testbed.ran(note) == 1
    outcome = await testbed.call(client, transport, note)
    assert outcome.text.startswith(f"done: {note}")
    assert (outcome.is_error, outcome.failed) == (False, "")
    assert testbed.ran(note) == 1


#: For every client: it waits until the call ends.
WITHOUT_TIMEOUT = {
    "allowed": allowed,
    "held, then approved": held_then_approved,
    "held, then denied": held_then_denied,
}
#: For clients without tasks, at a gateway that keeps connections open for a short time only.
SHORT_HOLD = {"waiting, then collected": waiting_then_collected}
#: For clients that cancel or disconnect when their own timeout ends the call.
CANCELLING = {"given up, then collected": given_up_then_collected}
#: The same for one that tells nobody. As far as anybody can see it waits on, so its call runs and its answer is lost. Asked again in
#: the same session, it gets that answer once more.
SILENT = {"given up in silence": given_up_in_silence}


def parametrize_cases(ways: list, *, tasks: tuple = (), untimed: tuple = (), silent: tuple = ()) -> list:
    """Return every row (client, transport, case).

    Among the *ways* (client, transport), those in *tasks* poll a task, those in *untimed* have a fixed long timeout, and
    those in *silent* send no cancellation on a timeout.
    """
    rows = [
        (WITHOUT_TIMEOUT, ways),
        (SHORT_HOLD, [way for way in ways if way not in tasks]),
        (CANCELLING, [way for way in ways if way not in (*untimed, *silent)]),
        (SILENT, silent),
    ]
    return [
        pytest.param(*way, case, id="-".join((*way, name)))
        for cases, those in rows
        for way in those
        for name, case in cases.items()
    ]
