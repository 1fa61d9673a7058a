"""Audit events of exchanges; an event that an agent can repeat at will is posted once a minute."""

from approval_fixtures import Clock
from approvals.store.memory.store import MemoryStore
from gateway.auth.agents import LOCAL
from gateway.call import audit
from gateway.call.audit import AuditLog
from gateway.call.request import Exchange, RequestHead

ASKED = Exchange(agent=LOCAL, server="notes", verb="POST", body=b"", head=RequestHead())


async def test_a_repeatable_event_is_posted_once_a_minute_per_call():
    clock, store = Clock(), MemoryStore()
    written = AuditLog(store, clock=clock, wall=clock)

    async def calls():
        return [event.detail["denial"] for event in await store.events(limit=100_000)]

    def note(number):
        written.at_most_once_a_minute(ASKED, "call.denied", about=str(number), denial=number)

    for number in (1, 1, 2):
        note(number)
    assert await calls() == [1, 2]
    clock.now += audit.MINUTE
    note(1)
    assert await calls() == [1, 2, 1]
    for number in range(3, 3 + audit.MAX_REMEMBERED):
        note(number)
    note(1)
    assert (await calls())[-1] == 1
    assert len(written._last) == audit.MAX_REMEMBERED
