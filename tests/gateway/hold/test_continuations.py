"""Our stdio front repeats a held call by its id: it continues that call and never makes a new one."""

import asyncio

import pytest

from approvals.model import Decision
from gateway.wire import protocol
from gateways import META, call, last_frame, running, text
from process import sha256

FRONT = {"Okayed-Front": "stdio"}


def repeat_headers(held, **more):
    return {**FRONT, "Okayed-Hold": held.id, **more}


@pytest.fixture
async def gateway():
    async with running() as gateway:
        yield gateway


async def lose_connection(gateway, arguments=None, headers=None):
    """Send a call that is held, and lose the connection; returns the held call."""
    answer = await gateway.post(call("create_note", arguments), {**FRONT, **(headers or {})})
    held = (await gateway.held())[-1]
    assert answer.headers["Okayed-Hold"] == held.id
    answer.close()
    return held


async def test_only_our_own_front_gets_the_call_id_and_at_once(gateway):
    await lose_connection(gateway)
    other = asyncio.ensure_future(gateway.post(call("create_note", {"text": "b"})))
    _, second = await gateway.held(2)
    await gateway.review(second)
    assert "Okayed-Hold" not in (await other).headers


@pytest.mark.parametrize(
    ("answer", "told"), [(Decision.APPROVE, "ran create_note"), (Decision.DENY, "NOT EXECUTED")]
)
async def test_a_repeat_by_id_is_the_same_call_before_and_after_the_decision(gateway, answer, told):
    held = await lose_connection(gateway)
    waiting = asyncio.ensure_future(gateway.call("create_note", id=1, headers=repeat_headers(held)))
    while held.id not in gateway.gateway.service.presence.clients:
        await asyncio.sleep(0)
    await gateway.review(held, answer, reason="no")
    for frame in (await waiting, await gateway.call("create_note", id=2, headers=repeat_headers(held))):
        assert told in text(frame)
    assert len(gateway.ran()) == (answer is Decision.APPROVE)
    assert [
        one.id for one in (await gateway.gateway.store.select(["pending", "completed", "denied"])).items
    ] == [held.id]


async def test_a_repeat_of_a_call_in_doubt_says_so_and_does_not_run(gateway):
    held = await lose_connection(gateway)
    await gateway.review(held)
    service = gateway.gateway.service
    _, won = await service.claim(held.id, lambda _: None)
    assert won
    await service.record_in_doubt(held.id, "The gateway was killed.")
    assert "MAY" in text(await gateway.call("create_note", headers=repeat_headers(held)))
    assert gateway.ran() == []


AGENTS = "agents: [{name: ci, token_sha256: %s}, {name: other, token_sha256: %s}]"


async def test_an_id_of_another_agent_server_or_call_is_unknown_and_holds_nothing():
    agents = AGENTS % (sha256("ci-token"), sha256("other-token"))
    async with running(more=agents, second_server="more") as gateway:
        mine = {"Authorization": "Bearer ci-token"}
        held = await lose_connection(gateway, {"text": "a"}, mine)
        wrong = [
            (gateway.url, call("create_note", {"text": "a"}), {"Authorization": "Bearer other-token"}),
            (gateway.url.replace("notes", "more"), call("create_note", {"text": "a"}), mine),
            (gateway.url, call("create_note", {"text": "b"}), mine),
            (gateway.url, call("update_note", {"text": "a"}), mine),
        ]
        for url, body, headers in wrong:
            async with gateway.http.post(url, json=body, headers=repeat_headers(held, **headers)) as answer:
                assert answer.status == 404
                assert "not know this held call" in (await answer.json())["error"]["message"]
                assert protocol.UNSENT_HEADER not in answer.headers
        unknown = await gateway.post(call("create_note"), {**FRONT, "Okayed-Hold": "hold_0", **mine})
        assert unknown.status == 404
        assert len(await gateway.held()) == 1


async def test_the_id_is_sent_to_no_server(gateway):
    held = await lose_connection(gateway)
    waiting = asyncio.ensure_future(gateway.call("create_note", headers=repeat_headers(held)))
    await gateway.review(held)
    await waiting
    assert not {"okayed-hold", "okayed-front"} & gateway.recorder.calls[0].headers.keys()


async def test_in_2026_rounds_continue_from_the_one_that_broke(gateway):
    """The common SDKs give up after ten rounds, so a lost connection must not restart them."""
    headers = {
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "create_note",
        **FRONT,
    }
    meta = {"_meta": {**META, "io.modelcontextprotocol/clientCapabilities": {}}}
    posted = asyncio.ensure_future(gateway.post(call("create_note", **meta), headers))
    [held] = await gateway.held()
    rounds = []
    for _ in range(3):
        answer = asyncio.ensure_future(_read(await posted))
        await gateway.pass_time(10_000)
        state = (await answer)["result"]["requestState"]
        rounds.append(gateway.gateway.sealer().open(state).round)
        named = {"Okayed-Hold": held.id} if len(rounds) == 2 else {}
        body = call("create_note", **meta, requestState=state)
        posted = asyncio.ensure_future(gateway.post(body, {**headers, **named}))
    (await posted).close()
    assert rounds == [1, 2, 3]


async def _read(answer):
    return last_frame(await answer.read())
