"""A wrong clock: held calls expire in time, and no expired approval runs."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from approval_fixtures import held
from approvals import lifecycle
from approvals.errors import AlreadyDecided
from approvals.model import Decision, LoginSession, OneTimeCode, Outcome, State
from gateway.app import serving
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.cli import check
from gateways import Clock, running, text
from hang import HANG

MINUTES = 60.0


def fine(_):
    return None


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def config(tmp_path):
    return parse_config(
        f"servers: {{iam: {{url: 'http://127.0.0.1:9/mcp'}}}}\nstore: sqlite:///{tmp_path}/h.db\n"
        "approvers: [{name: alice}, {name: bob}]\npolicy: {default: require_approval}\n",
        {},
        str,
    )


@asynccontextmanager
async def started(config, clock):
    async with assemble(config, clock.wall, clock) as gateway:
        yield gateway


async def hold(gateway, **changes):
    return await gateway.service.hold(held(gateway.clock(), **changes))


async def review(gateway, call):
    approver = gateway.service.directory.by_name("alice")
    return await gateway.service.review(call.id, approver, Decision.APPROVE, via="inbox", digest=call.digest)


async def state(gateway, call):
    return (await gateway.service.get(call.id)).state


async def test_a_hold_expires_in_time_after_the_clock_was_set_back():
    async with running(
        "{default: require_approval, tools: {'*': {action: require_approval, expire_after: 4s}}}"
    ) as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note", {"text": "x"}))
        [call] = await gateway.held()
        gateway.clock.ahead = -10 * MINUTES
        await gateway.pass_time(9)
        with pytest.raises(AlreadyDecided):
            await gateway.review(call)
        assert "NOT EXECUTED" in text(await agent).upper() or "expired" in text(await agent)
        assert gateway.ran() == []


async def test_an_expired_approval_is_not_claimed_after_the_clock_was_set_back(config, clock):
    async with started(config, clock) as gateway:
        call = await review(gateway, await hold(gateway))
        clock.ahead = -10 * MINUTES
        clock.now = call.expires_at
        call, won = await gateway.service.claim(call.id, fine)
        assert (call.state, won) == (State.EXPIRED, False)


async def test_deadlines_follow_the_later_time_and_the_audit_trail_the_clock(config, clock):
    async with started(config, clock) as gateway:
        await hold(gateway)
        clock.ahead = -10 * MINUTES
        clock.now += 1
        call = await review(gateway, await hold(gateway, tool="other"))
        assert call.created_at == clock.now
        assert call.expires_at == clock.now + call.terms.approved_for
        events = await gateway.store.events()
        assert [event.at for event in events] == [clock.now - 1, clock.wall(), clock.wall()]


async def test_after_a_restart_with_the_clock_set_back_time_continues_from_the_last_commit(config, clock):
    async with started(config, clock) as gateway:
        call = await hold(gateway)
    clock.ahead = -3600.0
    clock.now = call.expires_at
    async with started(config, clock) as gateway:
        assert gateway.clock() == call.created_at
        clock.now += call.expires_at - call.created_at
        await gateway.service.sweep()
        assert await state(gateway, call) is State.EXPIRED


async def test_an_expired_call_stays_expired_after_a_restart_with_the_clock_set_back(config, clock):
    async with started(config, clock) as gateway:
        call = await review(gateway, await hold(gateway))
        clock.now = call.expires_at
        await gateway.service.sweep()
    clock.ahead = -3600.0
    async with started(config, clock) as gateway:
        assert (await gateway.service.claim(call.id, fine))[1] is False
        assert await state(gateway, call) is State.EXPIRED


async def test_time_that_passes_without_a_commit_is_kept_once_a_minute(config, clock):
    async with started(config, clock) as gateway:
        await gateway.service.sweep()
        clock.now += 59
        await gateway.service.sweep()
        assert await gateway.store.highest_time() == clock.now - 59
        clock.now += 1
        await gateway.service.sweep()
        assert await gateway.store.highest_time() == clock.now


async def test_a_clock_more_than_a_minute_behind_is_reported_until_it_has_caught_up(config, clock, caplog):
    caplog.set_level("INFO")
    async with started(config, clock) as gateway:
        gateway.discovery_done.set()
        clock.ahead = -60.0
        assert await gateway.readiness_problem() is None
        clock.ahead = -61.0
        reported = False
        for _ in range(3):
            reported = serving.log_clock_problem(gateway.clock_problem(), reported=reported)
        said = (
            "clock: this machine's clock is 61 s behind the latest time in the store. Deadlines follow the later"
            " time. Correct the clock; if it was ahead before, stop the gateway and run: okayed check --reset-clock"
        )
        assert await gateway.readiness_problem() == said
        clock.ahead = 0.0
        assert await gateway.readiness_problem() is None
        serving.log_clock_problem(gateway.clock_problem(), reported=reported)
    assert [one.message for one in caplog.records if one.message.startswith("clock:")] == [
        said,
        "clock: the clock has caught up",
    ]


async def test_a_wait_ends_in_time_whatever_the_clock_says():
    async with running("default: require_approval", "approvals: {hold_for: 30s}") as gateway:
        agent = asyncio.ensure_future(gateway.call("create_note", {"text": "x"}))
        await gateway.held()
        gateway.clock.ahead = 3600.0 - 1  # shorter than any hold, longer than any wait
        await gateway.pass_time(0)
        assert not agent.done()
        gateway.clock.ahead = -3600.0
        await gateway.pass_time(31)
        async with asyncio.timeout(HANG):
            assert "WAITING" in text(await agent)


async def test_reset_clock_voids_waiting_calls_and_uses_the_clock_again(config, clock):
    clock.ahead = 3600.0
    async with started(config, clock) as gateway:
        pending = await hold(gateway)
        approved = await review(gateway, await hold(gateway, tool="other"))
        gateway.store.add_hit("limit", gateway.clock(), gateway.clock() + 60)
        now = gateway.clock()
        await gateway.store.save_login(
            LoginSession(id_sha256="x", approver="alice", created_at=now, expires_at=now + 60, seen_at=now)
        )
        await gateway.store.save_code(
            OneTimeCode(id_sha256="x", approver="alice", created_at=now, expires_at=now + 60)
        )
    clock.ahead = 0.0
    async with started(config, clock) as gateway:
        assert gateway.clock.behind == 3600
    said = await check.reset_clock(config, clock.wall)
    assert (
        said
        == "The store's time was 2027-01-15 09:00:00 UTC and is now 2027-01-15 08:00:00 UTC. Calls voided: 2."
    )
    async with started(config, clock) as gateway:
        assert gateway.clock() == clock.now
        assert gateway.clock_problem() is None
        assert [await state(gateway, one) for one in (pending, approved)] == [State.VOIDED] * 2
        assert await gateway.store.hits(clock.now) == [("limit", clock.now, 1)]
        assert await gateway.store.find_login("x") is None
        assert await gateway.store.take_code("x") is None
        last = (await gateway.store.events())[-1]
        assert (last.kind, last.at, last.detail) == (
            "clock.reset",
            clock.now,
            {"was": clock.now + 3600, "voided": 2},
        )


async def test_a_call_that_ran_while_the_clock_was_ahead_is_not_continued_after_the_reset(config, clock):
    clock.ahead = 3600.0
    async with started(config, clock) as gateway:
        call = await review(gateway, await hold(gateway))
        await gateway.service.claim(call.id, fine)
        await gateway.service.finish(call.id, Outcome(is_error=False, body=b"{}"))
    clock.ahead = 0.0
    await check.reset_clock(config, clock.wall)
    async with started(config, clock) as gateway:
        with pytest.raises(AlreadyDecided):
            await gateway.service.continue_call(call.id, held(clock.now))


async def test_a_call_settled_while_the_clock_was_ahead_answers_no_call_after_the_reset(config, clock):
    clock.ahead = 86400.0
    async with started(config, clock) as gateway:
        denied = await hold(gateway)
        alice = gateway.service.directory.by_name("alice")
        await gateway.service.review(denied.id, alice, Decision.DENY, via="inbox", reason="no")
        ran = await review(gateway, await hold(gateway, tool="other"))
        await gateway.service.claim(ran.id, fine)
        await gateway.service.finish(ran.id, Outcome(is_error=False, body=b"{}"))
        given = await review(gateway, await hold(gateway, tool="third"))
        await gateway.service.claim(given.id, fine)
        await gateway.service.finish(given.id, Outcome(is_error=False, body=b"{}"))
        await gateway.service.record_collected(given.id, "s1")
    clock.ahead = 0.0
    await check.reset_clock(config, clock.wall)
    async with started(config, clock) as gateway:
        denied, ran, given = [await gateway.service.get(one.id) for one in (denied, ran, given)]
        assert not lifecycle.is_still_denied(denied, clock.now)
        assert not lifecycle.can_join(ran, clock.now)
        assert not lifecycle.can_repeat(given, clock.now, "s1")


async def test_the_clock_cannot_be_reset_while_a_gateway_runs(config, clock):
    async with started(config, clock):
        with pytest.raises(Exception, match="Another gateway uses"):
            await check.reset_clock(config, clock.wall)
