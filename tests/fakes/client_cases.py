"""What can befall a call, and which clients it befalls: every one goes through all that it can."""

import asyncio

import pytest

from real_clients import Client, Scene


async def allowed(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    outcome = await scene.call(client, transport, note, tool="get_note")
    assert outcome == (f"done: {note}", False, "")
    assert scene.ran(note) == 1


async def held_then_approved(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(scene.call(client, transport, note))
        await scene.decide(note)
    assert calling.result() == (f"done: {note}", False, "")
    assert scene.ran(note) == 1


async def held_then_denied(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    async with asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(scene.call(client, transport, note))
        await scene.decide(note, "deny", reason="use the staging account")
    assert calling.result() == (
        "Denied by alice: use the staging account. NOT EXECUTED. Asking again will not change this.",
        True,
        "",
    )
    assert scene.ran(note) == 0


async def waiting_then_collected(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    outcome = await scene.call(client, transport, note, gateway="brief")
    assert outcome.text.startswith("WAITING: a person has to approve this call (hold_")
    assert (outcome.is_error, outcome.failed) == (True, "")
    await scene.decide(note, gateway="brief")
    assert scene.ran(note) == 0
    outcome = await scene.call(client, transport, note, gateway="brief")
    assert outcome == (f"done: {note}", False, "")
    assert scene.ran(note) == 1


async def given_up_then_collected(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    outcome = await scene.call(client, transport, note, seconds=1)
    assert outcome.failed
    await scene.until(note, lambda call: not call["attended"])
    await scene.decide(note)
    assert scene.ran(note) == 0
    outcome = await scene.call(client, transport, note)
    assert outcome == (f"done: {note}", False, "")
    assert scene.ran(note) == 1


async def given_up_in_silence(scene: Scene, client: Client, transport: str) -> None:
    note = scene.note()
    outcome = await scene.call(client, transport, note, seconds=1)
    assert outcome.failed
    await scene.decide(note)
    await scene.until(note, lambda call: call["collected"])
    assert scene.ran(note) == 1
    outcome = await scene.call(client, transport, note)
    assert outcome.text.startswith(f"done: {note}")
    assert (outcome.is_error, outcome.failed) == (False, "")
    assert scene.ran(note) == 1


#: What befalls a client that waits for as long as it takes.
PATIENT = {
    "allowed": allowed,
    "held, then approved": held_then_approved,
    "held, then denied": held_then_denied,
}
#: What befalls one for which the gateway keeps a connection open for too short a time, and that knows no tasks.
ASKING = {"waiting, then collected": waiting_then_collected}
#: What befalls one whose own timer ends the call, and that tells so: it cancels, or hangs up.
TELLING = {"given up, then collected": given_up_then_collected}
#: The same for one that tells nobody. As far as anybody can see it waits on, so its call runs and its answer is lost. Asked again in
#: the same session, it gets that answer once more.
SILENT = {"given up in silence": given_up_in_silence}


def table(ways: list, *, tasks: tuple = (), untimed: tuple = (), silent: tuple = ()) -> list:
    """Return every row (client, transport, case).

    Among the *ways* (client, transport), those in *tasks* poll a task, those in *untimed* have no timer that can be made short,
    and those in *silent* tell nobody when it ends.
    """
    rows = [
        (PATIENT, ways),
        (ASKING, [way for way in ways if way not in tasks]),
        (TELLING, [way for way in ways if way not in (*untimed, *silent)]),
        (SILENT, silent),
    ]
    return [
        pytest.param(*way, case, id="-".join((*way, name)))
        for cases, those in rows
        for way in those
        for name, case in cases.items()
    ]
