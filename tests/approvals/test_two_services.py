"""Agents, approvers and servers use two services on one store at random; the history has no fault.

The services sweep, crash and are suspended meanwhile.

OKAYED_SEED repeats one run on a store in memory; HYPOTHESIS_PROFILE=deep makes many.
"""

import asyncio
import json
import os
from collections import Counter
from contextlib import suppress
from itertools import count
from random import Random, SystemRandom

from approval_fixtures import Clock, directory, held
from approvals.errors import ApprovalError
from approvals.lifecycle import SETTLED
from approvals.model import Decision, Outcome, State, Terms
from approvals.replica import LEASE, OVERDUE
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from hang import HANG
from history import Answer
from history_checks import assert_no_faults
from killable_services import KillableService, KilledError
from replacing import replace
from run_log import RunLog, all_calls

DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
KEY = b"key"
#: The calls of one run.
CALLS = 14
#: Seconds that the clock moves at once: a service that lives renews its lease in time.
STEP = 5.0
TERMS = Terms(approvers=frozenset({"alice", "bob"}), expire_after=120.0, approved_for=90.0, denied_for=0.0)
#: The answer to a client by the state of its call; it waits in the other states.
ANSWERS = {
    State.COMPLETED: Answer.RESULT,
    State.UPSTREAM_ERROR: Answer.RESULT,
    State.DENIED: Answer.DENIED,
    State.EXPIRED: Answer.NOT_RUN,
    State.CANCELLED: Answer.NOT_RUN,
    State.VOIDED: Answer.NOT_RUN,
    State.NOT_SENT: Answer.NOT_RUN,
    State.IN_DOUBT: Answer.IN_DOUBT,
    State.RESOLVED: Answer.RESOLVED,
}
FINAL = {Answer.RESULT, Answer.DENIED, Answer.NOT_RUN, Answer.RESOLVED}


class Run:
    """One run: two services, the people and programs around them, and their logs."""

    def __init__(self, store, seed):
        self.store, self.chance = store, Random(seed)
        self.clock, self.numbers = Clock(), count(1)
        self.log = RunLog(self._read_head)
        self.processes = [self._new_process() for _ in range(2)]
        self.clients_left = CALLS

    async def _read_head(self):
        await self.store.check()  # after every write that was already under way
        return await self.store.head()

    def _new_process(self):
        return KillableService(self.store, directory(), self.clock, self.chance)

    def likely(self, percent):
        return self.chance.randrange(100) < percent

    async def idle(self, most=20):
        for _ in range(self.chance.randrange(most)):
            await asyncio.sleep(0)

    async def play(self):
        """Play the whole run and return its history."""
        async with asyncio.timeout(HANG), asyncio.TaskGroup() as tasks:
            for number in range(CALLS):
                tasks.create_task(self.ask_until_answered(f"marker-{number}"))
            for who in ("alice", "bob"):
                tasks.create_task(self.decide(who))
            tasks.create_task(self.let_time_pass())
        for process in self.processes:
            await process.finish()
        await self.pass_time(60.0)
        calls, events = await all_calls(self.store), await self.store.events(limit=100_000)
        return self.log.history(calls, events, chain_key=KEY)

    # Agents.

    async def ask_until_answered(self, name):
        needed = self.chance.choice((1, 1, 2))
        arguments = json.dumps({"marker": name}).encode()
        for _ in range(40):
            sent, call, answer = self.log.next_place(), None, Answer.LOST
            process = self.chance.choice(self.processes)
            try:
                call = await process.serve(self.answer(process, arguments, needed))
                answer = ANSWERS.get(call.state, Answer.WAITING)
            except KilledError:
                pass
            self.log.add_request(
                "ci-bot", "iam", "put_user_policy", arguments, sent=sent, answer=answer,
                call=call.id if call else "", text=call.outcome.body.decode() if call and call.outcome else "",
            )  # fmt: skip
            if answer in FINAL:
                break
            await self.idle()
        self.clients_left -= 1

    async def answer(self, process, arguments, needed):
        """Answer a request as the gateway does: hold, wait, run when approved, record that the answer was collected."""
        service = process.service
        made = held(self.clock(), arguments=arguments)
        call = await service.hold(
            replace(made, terms=replace(TERMS, needed=needed), expires_at=self.clock() + TERMS.expire_after)
        )
        with service.attend(call.id):
            for _ in range(self.chance.randrange(1, 30)):
                if call.state is State.APPROVED:
                    process.start(self.run(process, call.id))
                if call.state in SETTLED:
                    break
                await self.idle(6)
                call = await service.get(call.id)
        if call.state not in SETTLED and self.likely(3):
            call = await service.cancel(call.id, "tired", actor="ci-bot")
        if call.state in SETTLED and self.likely(90):
            await service.record_collected(call.id)
        return call

    # Servers.

    async def run(self, process, call_id):
        """Run a call once, as the gateway does: it logs an error of its service."""
        with suppress(ApprovalError):
            call, won = await process.service.claim(call_id, lambda _: None)
            if won:
                await self.send(process, call)

    async def send(self, process, call):
        """Send a call to a server that may refuse, fail, break the connection or answer late."""
        service = process.service
        await self.idle()
        await process.connection.running.wait()
        if not service.may_send(call.id):
            await service.record_not_sent(call.id, "suspended")
            return
        how = self.chance.choice(("answer", "answer", "answer", "fail", "refuse", "cut", "late", "late"))
        if how == "refuse":
            await service.record_not_sent(call.id, "refused")
            return
        given = call.call.arguments
        await self.log.add_received("iam", "put_user_policy", given, cut=how in {"cut", "late"})
        await self.idle(60)
        if how in {"cut", "late"}:
            await service.record_unanswered(call.id, "late")
            await self.idle(20)
        if how == "cut":
            await service.record_in_doubt(call.id, "cut")
            return
        await service.finish(call.id, Outcome(is_error=how == "fail", body=given))

    # Approvers.

    async def decide(self, who):
        while self.clients_left:
            await self.idle()
            for call in (await self.store.select((State.PENDING,))).items:
                if self.likely(30):
                    await self.review(who, call)
            for call in (await self.store.select((State.FORWARDING, State.IN_DOUBT))).items:
                if self.likely(5):
                    await self.look_into(who, call)

    async def review(self, who, call):
        """Answer a call, sometimes twice or with a stale view. A call that was made before is denied."""
        decision = Decision.DENY if call.twin or self.likely(15) else Decision.APPROVE
        digest = "0" * 64 if self.likely(10) else call.digest
        for _ in range(self.chance.choice((1, 1, 2))):
            process = self.chance.choice(self.processes)
            approver = process.service.directory.by_name(who)
            try:
                reviewed = await process.serve(
                    process.service.review(call.id, approver, decision, via="api", reason="r", digest=digest)
                )
            except ApprovalError:
                await self.log.add_review(call.id, who, decision, acknowledged=False)
            else:
                self.log.acknowledged.append((call.id, reviewed.version))
                await self.log.add_review(call.id, who, decision, acknowledged=True)

    async def look_into(self, who, call):
        """Give a running call up, or resolve a call in doubt."""
        process = self.chance.choice(self.processes)
        service, approver = process.service, process.service.directory.by_name(who)
        act = service.give_up if call.state is State.FORWARDING else service.resolve
        with suppress(ApprovalError):
            await process.serve(act(call.id, approver, "I looked", via="cli"))

    # The world.

    async def let_time_pass(self):
        while self.clients_left:
            await self.pass_time(STEP)
            await self.idle(30)
            if self.likely(15):
                await self.crash(self.chance.randrange(2))
            if self.likely(10):
                await self.suspend(max(self.processes, key=lambda process: len(process.service.running)))

    async def pass_time(self, seconds):
        """Move the clock; each service sweeps several times meanwhile."""
        for _ in range(int(seconds / STEP)):
            self.clock.now += STEP
            for process in self.chance.choices(self.processes, k=2) + self.processes:
                if process.connection.running.is_set():
                    await process.serve(process.service.sweep())

    async def suspend(self, process):
        """Suspend a process until after its lease."""
        process.connection.running.clear()
        await self.log.add_kill(process.service.replica.id)
        await self.pass_time(LEASE + OVERDUE + STEP)
        process.connection.running.set()
        await process.serve(process.service.sweep())  # which renews the lease

    async def crash(self, number):
        old = self.processes[number]
        self.processes[number] = self._new_process()
        await old.kill()
        await self.log.add_kill(old.service.replica.id)


async def play(store, seed):
    """Play one run and check it; return how often each answer was given."""
    run = Run(store, seed)
    history = await run.play()
    where = f"with OKAYED_SEED={seed}"
    assert_no_faults(history, about=where)
    running = [call.id for call in history.calls if call.state is State.FORWARDING]
    assert running == [], f"The runs of a killed service are not in doubt {where}."
    return Counter(request.answer for request in history.requests) + Counter(kills=len(history.kills))


def seeds(runs):
    given = os.environ.get("OKAYED_SEED")
    return [int(given)] if given else [SystemRandom().randrange(2**32) for _ in range(runs)]


def happened(seen):
    """Return whether the runs had everything that can go wrong."""
    return {Answer.RESULT, Answer.DENIED, Answer.WAITING, Answer.LOST, Answer.IN_DOUBT, "kills"} <= set(seen)


async def test_two_services_on_one_store_in_memory_keep_every_promise():
    seen = Counter()
    for seed in seeds(2000 if DEEP else 40):
        seen += await play(MemoryStore(chain_key=KEY), seed)
    assert happened(seen) or "OKAYED_SEED" in os.environ, seen


async def test_two_services_on_one_sqlite_store_keep_every_promise(tmp_path):
    seen = Counter()
    for seed in seeds(100 if DEEP else 6):
        store = await SqliteStore.open(tmp_path / f"{seed}.db", chain_key=KEY)
        try:
            seen += await play(store, seed)
            in_memory = store._open.by_id
        finally:
            await store.close()
        store = await SqliteStore.open(tmp_path / f"{seed}.db", chain_key=KEY)
        assert store._open.by_id == in_memory
        await store.close()
    assert {Answer.RESULT, Answer.WAITING, "kills"} <= set(seen), seen
