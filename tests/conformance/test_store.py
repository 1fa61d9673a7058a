"""Guarantees that every store must give."""

import asyncio

import pytest
from msgspec import structs

from approvals import audit
from approvals.errors import AgentBytesExceeded, Conflict, HourlyBytesExceeded, QuotaExceeded, StoreError
from approvals.lifecycle import SETTLED, advance, update
from approvals.model import AgentSession, CallId, CallLimit, LoginSession, Notice, OneTimeCode, Pin, State
from approvals.store import SESSION_LIFE, event_pages
from approvals.store.call_lists import Page
from approvals.store.event_pages import EventPage
from approvals.store.memory import store as memory
from approvals.store.sqlite import lists
from approvals.summaries import BEGINNING, ROW_BYTES, size, summarize
from replacing import replace
from store_fixtures import a_call, a_full_call, an_event

OPEN = [State.PENDING, State.APPROVED, State.FORWARDING, State.IN_DOUBT]
OVER = [state for state in State if state not in OPEN]


async def added(store, *calls):
    for call in calls:
        await store.add(call)
    return calls


async def trail(store):
    return await store.events(limit=100_000)


# Held calls


async def test_a_call_is_read_as_it_was_added_to_the_last_byte(store):
    call = a_full_call()
    await store.add(call)
    assert await store.get(call.id) == call


async def test_a_call_that_was_never_added_is_not_found(store):
    assert await store.get(CallId("hold_no")) is None
    assert await store.find("no") is None


async def test_a_read_sees_a_write_that_was_requested_before_it(store):
    (call,) = await added(store, a_call())
    swapping = asyncio.ensure_future(store.swap(call, update(call, collected=True)))
    await asyncio.sleep(0)
    assert (await store.find(call.key)).collected
    assert (await store.get(call.id)).collected
    assert await store.version(call.id) == call.version + 1
    await swapping


async def test_an_id_is_added_once(store):
    (call,) = await added(store, a_call(state=State.DENIED))
    with pytest.raises(Conflict):
        await store.add(replace(call, key="another"))
    assert await store.get(call.id) == call


@pytest.mark.parametrize("state", OPEN)
async def test_an_open_call_conflicts_with_another_of_its_key(store, state):
    (call,) = await added(store, a_call(state=state))
    other = a_call(key=call.key)
    with pytest.raises(Conflict):
        await store.add(other, an_event())
    assert await store.get(other.id) is None
    assert await trail(store) == []


@pytest.mark.parametrize("state", OVER)
async def test_a_settled_call_does_not_conflict_with_a_new_one(store, state):
    (call,) = await added(store, a_call(state=state))
    (again,) = await added(store, a_call(key=call.key))
    assert await store.get(again.id) == again


async def test_the_call_added_last_is_the_newest_of_its_key(store):
    await added(store, a_call(9, key="k", state=State.EXPIRED), a_call(key="other"))
    (newest,) = await added(store, a_call(3, key="k"))
    assert await store.find("k") == newest


async def test_a_swap_replaces_the_call_and_adds_its_events(store):
    (call,) = await added(store, a_call())
    denied = advance(call, State.DENIED, 1010.0, note="no")
    await store.swap(call, denied, an_event("hold.denied", call=call.id), an_event("noted"))
    assert await store.get(call.id) == denied
    assert [event.kind for event in await trail(store)] == ["hold.denied", "noted"]


async def test_a_swap_of_an_older_version_changes_nothing(store):
    (call,) = await added(store, a_call())
    now = update(call, note="later")
    await store.swap(call, now)
    with pytest.raises(Conflict):
        await store.swap(call, advance(call, State.APPROVED, 1.0), an_event())
    assert await store.get(call.id) == now
    assert await trail(store) == []


async def test_a_swap_of_a_call_that_was_never_added_is_a_conflict(store):
    call = a_call()
    with pytest.raises(Conflict):
        await store.swap(call, update(call))
    assert await store.get(call.id) is None


async def test_exactly_one_of_many_concurrent_swaps_wins(store):
    calls = await added(store, *(a_call() for _ in range(20)))

    async def decide(call, name):
        try:
            await store.swap(
                call, advance(call, State.APPROVED, 1.0, note=name), an_event("won", actor=name, call=call.id)
            )
        except Conflict:
            return None
        return name

    for call in calls:
        decided = await asyncio.gather(*(decide(call, f"person {number}") for number in range(25)))
        (winner,) = [name for name in decided if name]
        assert (await store.get(call.id)).note == winner
        assert [event.actor for event in await store.events(call=call.id)] == [winner]


async def test_exactly_one_of_many_concurrent_adds_of_a_key_wins(store):
    calls = [a_call(key="one") for _ in range(50)]
    done = await asyncio.gather(*(store.add(call, an_event()) for call in calls), return_exceptions=True)
    assert sorted(map(repr, done)) == sorted([repr(None), *[repr(Conflict())] * 49])
    assert len(await trail(store)) == 1


async def test_a_key_is_free_once_its_call_is_settled_but_not_while_it_is_in_doubt(store):
    (call,) = await added(store, a_call(key="k", state=State.FORWARDING))
    doubt = advance(call, State.IN_DOUBT, 1.0)
    await store.swap(call, doubt)
    with pytest.raises(Conflict):
        await store.add(a_call(key="k"))
    await store.swap(doubt, advance(doubt, State.RESOLVED, 2.0))
    await store.add(a_call(key="k"))


async def test_a_change_whose_event_cannot_be_written_does_not_happen(store):
    (call,) = await added(store, a_call())
    good = an_event()
    for bad in (an_event(detail={"of": object()}), an_event(actor="\ud800"), an_event(detail={"\ud800": 1})):
        with pytest.raises(StoreError):
            await store.swap(call, update(call, note="later"), good, bad)
        with pytest.raises(StoreError):
            await store.add(a_call(), good, bad)
        with pytest.raises(StoreError):
            await store.append(good, bad)
        with pytest.raises(StoreError):
            store.post(good, bad)
    assert (await store.select()).items == [call]
    assert await trail(store) == []


# Finding calls


async def test_calls_are_found_newest_first_and_filtered(store):
    first, second, third, fourth = await added(
        store,
        a_call(1, agent="ann", server="one", tool="read"),
        a_call(2, agent="bob", server="one", tool="write", state=State.DENIED),
        a_call(3, agent="ann", server="two", tool="write"),
        a_call(4, agent="cy%", server="two", tool="write", state=State.APPROVED),
    )
    assert (await store.select()).items == [fourth, third, second, first]
    assert (await store.select([State.PENDING])).items == [third, first]
    assert (await store.select([State.PENDING, State.APPROVED])).items == [fourth, third, first]
    assert (await store.select([State.DENIED])).items == [second]
    assert (await store.select([State.PENDING, State.DENIED], agent="ann")).items == [third, first]
    assert (await store.select(tool="write", server="two")).items == [fourth, third]
    assert (await store.select(tool="WRITE")).items == []
    assert (await store.select([State.EXPIRED])).items == []


async def test_a_call_beyond_a_limit_is_not_added_nor_are_its_events(store):
    for number, (state, agent) in enumerate(
        [(State.PENDING, "ann"), (State.DENIED, "ann"), (State.APPROVED, "bob"), (State.PENDING, "bob")]
    ):
        await store.add(a_call(key=f"k{number}", state=state, agent=agent))
    for full in (CallLimit(most=3), CallLimit(most=2, agent="bob")):
        with pytest.raises(QuotaExceeded):
            await store.add(a_call(999_999, key="k9"), an_event(), limits=[CallLimit(most=9), full])
    assert (len((await store.select()).items), len(await store.events())) == (4, 0)
    await store.add(a_call(999_999, key="k9"), limits=[CallLimit(most=4), CallLimit(most=2, agent="ann")])


def large(bytes_, **fields):
    """Return a call of this size."""
    return a_call(arguments=b'{"a":"' + b"x" * (bytes_ - ROW_BYTES - 8) + b'"}', **fields)


@pytest.mark.parametrize(
    "since, agent, there", [(0.0, "ann", 20_000), (0.0, "", 60_000), (1.0, "ann", 50_000)]
)
async def test_a_limit_counts_the_bytes_of_open_or_recent_calls_and_of_its_agent(store, since, agent, there):
    denied = large(30_000, agent="ann", state=State.DENIED)
    running = large(40_000, agent="bob", state=State.FORWARDING)
    await added(store, large(20_000, agent="ann"), denied, running)
    fits = CallLimit(since=since, most=there + 10_000, agent=agent, in_bytes=True, error=AgentBytesExceeded)
    with pytest.raises(AgentBytesExceeded):
        await store.add(large(10_001), an_event(), limits=[fits])
    assert (len((await store.select()).items), len(await store.events())) == (3, 0)
    await store.add(large(10_000), limits=[fits])


async def test_a_limit_with_a_start_time_counts_only_later_calls(store):
    for at in (1000.0, 2000.0, 3000.0):
        await store.add(large(10_000, agent="ann", state=State.CANCELLED, created_at=at))
    limit = CallLimit(most=29_999, agent="ann", in_bytes=True, since=1000.0, error=HourlyBytesExceeded)
    with pytest.raises(HourlyBytesExceeded):
        await store.add(large(10_000, agent="ann", created_at=3001.0), limits=[limit])
    await store.add(
        large(10_000, agent="ann", created_at=3001.0), limits=[structs.replace(limit, since=2000.0)]
    )


def test_a_limit_with_a_start_time_needs_an_agent():
    with pytest.raises(ValueError, match="needs an agent"):
        CallLimit(most=1, since=1.0)


async def test_a_burst_adds_no_more_bytes_than_a_limit_allows(store):
    limit = CallLimit(most=35_000, agent="bot", in_bytes=True)
    adding = (store.add(large(10_000, key=f"k{n}"), limits=[limit]) for n in range(12))
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert [type(one) for one in results] == [type(None)] * 3 + [QuotaExceeded] * 9


async def test_summaries_match_the_calls_after_each_change(store):
    calls = await added(store, a_full_call(), large(50_000, agent="ann"), a_call(tool="read", server="two"))
    await store.swap(calls[1], denied := advance(calls[1], State.DENIED, 1010.0))
    assert (await store.summaries()).items == list(map(summarize, [calls[2], denied, calls[0]]))
    assert (await store.summaries([State.DENIED], agent="ann")).items == [summarize(denied)]
    assert (await store.summaries(limit=1, before=calls[2].id)).items == [summarize(denied)]
    assert (await store.summaries(tool="read", server="two", text="rea")).items == [summarize(calls[2])]
    assert (size(denied), len(summarize(denied).beginning)) == (50_000, BEGINNING + 2)
    assert await store.version(denied.id) == denied.version
    assert await store.version(CallId("hold_no")) is None


async def test_a_page_of_calls_is_limited_in_size_but_has_at_least_one_call(store):
    calls = await added(store, *(large(50_000) for _ in range(4)))
    assert await store.select(room=1) == Page([calls[3]], calls[3].id)
    room = 3 * 50_000  # a row is up to half again as long as the size of its call
    assert 1 < len(found := (await store.select(room=room)).items) < 4
    assert (await store.select(before=found[-1].id, room=1e9)).items == list(reversed(calls))[len(found) :]


async def test_a_burst_adds_no_more_calls_than_a_limit_allows(store):
    limit = CallLimit(most=3)
    adding = (store.add(a_call(key=f"k{n}"), limits=[limit]) for n in range(12))
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert [type(one) for one in results] == [type(None)] * 3 + [QuotaExceeded] * 9


async def test_text_is_searched_in_tool_agent_and_id_with_its_case(store):
    first, second = await added(
        store, a_call(1, agent="100%", tool="read_all"), a_call(22, agent="bob", tool="readXall")
    )
    assert (await store.select(text="read_")).items == [first]
    assert (await store.select(text="%")).items == [first]
    assert (await store.select(text="ob")).items == [second]
    assert (await store.select(text="022")).items == [second]
    assert (await store.select(text="github")).items == []


async def test_calls_with_the_ids_of_an_earlier_version_are_listed_as_the_oldest(store):
    calls = [a_call(), a_call(), a_call()]
    calls[0] = replace(calls[0], id=CallId("hp_01kajz5v8q4m7x2n9c6b3d0e1f"))
    for call in calls:
        await store.add(call)
    first = (await store.select(limit=2)).items
    assert first == [calls[2], calls[1]]
    assert (await store.select(before=first[-1].id)).items == [calls[0]]
    assert (await store.select(before=calls[0].id)).items == []


async def test_the_highest_time_is_that_of_the_last_new_or_changed_call(store):
    call = a_call(1, created_at=1000.0)
    await store.add(call)
    assert await store.highest_time() == 1000.0
    await store.swap(call, advance(call, State.APPROVED, 2000.0, expires_at=1e12))
    assert await store.highest_time() == 2000.0


async def test_a_page_starts_after_the_last_call_of_the_previous_page(store):
    calls = await added(store, *(a_call(number, state=State.DENIED) for number in range(5)))
    first = await store.select(limit=2)
    second = await store.select(limit=2, before=first.next)
    third = await store.select(limit=2, before=second.next)
    assert [*first.items, *second.items, *third.items] == list(reversed(calls))
    assert third.next is None
    assert await store.select(limit=2, before=calls[0].id) == Page([], None)
    assert (await store.select(limit=3, before=first.next)).next is None


async def follow(read, states, **matching):
    """Return the items of each page, from the first to the last."""
    page = await read(states, **matching)
    pages = [page.items]
    while page.next:
        page = await read(states, **matching, before=page.next)
        pages.append(page.items)
    return pages


@pytest.fixture
def searches(monkeypatch):
    """Let each page look at three calls only."""
    for module in (memory, lists):
        monkeypatch.setattr(module, "MAX_SEARCHED", 3)


@pytest.mark.usefixtures("searches")
@pytest.mark.parametrize(
    "states, matching, pages",
    [
        ([], {"text": "rare"}, [[], [8, 6], [], [0]]),
        ([State.DENIED], {"tool": "rare"}, [[8], [6], [], [0]]),
        ([State.DENIED, State.PENDING], {"tool": "rare"}, [[], [8, 6], [], [0]]),
        ([], {"tool": "rare", "server": "one"}, [[8, 6, 0]]),
        ([], {"agent": "ann", "tool": "rare"}, [[8], [], [], [0]]),
        ([], {"server": "one", "text": "rare"}, [[8, 6], [], [0]]),
        ([], {"tool": "rare"}, [[8, 6, 0]]),
        ([], {"text": "none"}, [[], [], [], []]),
    ],
)
async def test_a_search_looks_at_a_limited_number_of_calls_a_page_and_ends_with_every_match(
    store, states, matching, pages
):
    calls = await added(
        store,
        *(
            a_call(
                tool="rare" if n in {0, 6, 8} else "often",
                agent="bob" if n in {6, 11} else "ann",
                server="two" if n in {9, 10, 11} else "one",
                state=State.PENDING if n in {7, 11} else State.DENIED,
            )
            for n in range(12)
        ),
    )
    expected = [[calls[n] for n in page] for page in pages]
    assert await follow(store.select, states, **matching) == expected
    summed_up = [list(map(summarize, page)) for page in expected]
    assert await follow(store.summaries, states, **matching) == summed_up


@pytest.mark.usefixtures("searches")
async def test_a_list_without_a_search_is_not_limited_in_the_calls_it_looks_at(store):
    calls = await added(store, *(a_call(state=state) for state in [State.DENIED, State.PENDING] * 4))
    for states in ([], [State.DENIED, State.PENDING], [State.PENDING, State.DENIED, State.PENDING]):
        assert await store.select(states) == Page(list(reversed(calls)), None)


async def test_pending_and_approved_calls_are_due_from_their_deadline(store):
    late, soon = await added(store, a_call(expires_at=200.0), a_call(expires_at=100.0, state=State.APPROVED))
    await added(store, *(a_call(state=state, expires_at=1.0) for state in SETTLED | {State.FORWARDING}))
    assert await store.due(99.999) == []
    assert await store.due(100.0) == [soon.id]
    assert await store.due(1e12) == [soon.id, late.id]


async def test_a_call_is_found_by_its_current_state(store):
    (call,) = await added(store, a_call(expires_at=100.0))
    approved = advance(call, State.APPROVED, 50.0, expires_at=500.0)
    await store.swap(call, approved)
    assert (await store.select([State.PENDING])).items == []
    assert (await store.select([State.APPROVED])).items == [approved]
    assert await store.due(499.0) == []
    assert await store.due(500.0) == [approved.id]


async def test_open_calls_are_counted_by_state(store):
    none = dict.fromkeys(OPEN, 0)
    assert await store.open_counts() == none
    calls = await added(store, *(a_call(state=state) for state in State), a_call())
    assert await store.open_counts() == none | dict.fromkeys(OPEN, 1) | {State.PENDING: 2}
    await store.swap(calls[-1], advance(calls[-1], State.EXPIRED, 2000.0))
    assert await store.open_counts() == dict.fromkeys(OPEN, 1)


async def test_open_calls_with_a_task_are_found_oldest_first(store):
    calls = await added(store, *(a_call(state=state, task=True) for state in reversed(State)), a_call())
    with_task = [call for call in calls if call.task and call.state not in SETTLED]
    assert await store.open_tasks() == [call.id for call in with_task]
    await store.swap(calls[-1], update(calls[-1], task=True))
    await store.swap(with_task[0], advance(with_task[0], State.IN_DOUBT, 2000.0))
    assert await store.open_tasks() == [*(call.id for call in with_task[1:]), calls[-1].id]


async def test_open_summaries_are_those_of_calls_that_wait_or_run_newest_first(store):
    calls = await added(store, *(a_call(state=state) for state in State))
    other = a_call(server="other", tool="read")
    await added(store, other)
    still_open = [summarize(call) for call in reversed(calls) if call.state not in SETTLED]
    assert await store.open_summaries() == [summarize(other), *still_open]
    assert await store.open_summaries(server="github") == still_open
    assert await store.open_summaries(server="other", tool="read") == [summarize(other)]
    assert await store.open_summaries(server="other", tool="delete_repo") == []


# The audit trail


async def test_events_are_numbered_from_one_and_linked(store):
    await store.append(an_event("a", detail={"n": 1, "of": ("x", None)}), an_event("b"))
    await store.append(an_event("c", call="hold_1"))
    events = await trail(store)
    assert [(event.seq, event.kind) for event in events] == [(1, "a"), (2, "b"), (3, "c")]
    assert [event.prev for event in events] == ["", events[0].hash, events[1].hash]
    assert events[0].detail == {"n": 1, "of": ["x", None]}
    assert replace(events[2], seq=0, prev="", hash="") == an_event("c", call="hold_1")
    assert audit.verify(events) is None


async def test_an_encoded_event_is_posted_in_its_order(store):
    template = audit.EventTemplate(kind="call.allowed", actor="claude", agent="claude", detail={"n": 1})
    store.post(an_event("first"))
    store.post_entry(template.at(1000.5))
    store.post_entry(template.at(1001.0))
    await store.append(an_event("last"))
    events = await store.events()
    assert [(event.at, event.kind) for event in events[1:3]] == [
        (1000.5, "call.allowed"),
        (1001.0, "call.allowed"),
    ]
    assert [event.kind for event in events] == ["first", "call.allowed", "call.allowed", "last"]
    assert audit.verify(events) is None


async def test_posted_events_precede_later_appends(store):
    store.post(an_event("first"))
    store.post(an_event("second"), an_event("third"))
    await store.append(an_event("fourth"))
    store.post(an_event("fifth"))
    assert [event.kind for event in await trail(store)] == ["first", "second", "third", "fourth", "fifth"]


async def test_concurrent_writers_leave_the_chain_whole(store):
    calls = await added(store, *(a_call() for _ in range(30)))

    async def change(call):
        for number in range(5):
            store.post(an_event("posted", detail={"n": number}))
            with_event = store.swap(call, update(call), an_event("won"))
            late = store.swap(call, update(call), an_event("lost"))
            results = await asyncio.gather(
                with_event, late, store.append(an_event("waited")), return_exceptions=True
            )
            assert [type(one) for one in results] == [type(None), Conflict, type(None)]
            call = update(call)

    async with asyncio.TaskGroup() as tasks:
        for call in calls:
            tasks.create_task(change(call))
    events = await trail(store)
    assert audit.verify(events) is None
    kinds = [event.kind for event in events]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"posted": 150, "won": 150, "waited": 150}


async def test_a_trail_under_a_key_verifies_only_under_that_key(open_store):
    async with open_store(chain_key=b"k1") as store:
        await store.append(an_event())
        events = await trail(store)
        assert audit.verify(events, b"k1") is None
        assert audit.verify(events, b"k2").seq == audit.verify(events).seq == 1


async def test_events_are_read_after_a_number_and_filtered(store):
    await store.append(
        an_event("a", at=10.0, tool="read", agent="ann"),
        an_event("b", at=30.0, tool="read", agent="bob", call="hold_1"),
        an_event("c", at=20.0, tool="write", agent="ann", call="hold_1"),
        an_event("d", at=40.0, tool="read", agent="ann", call="hold_2"),
    )

    async def kinds(**narrowed):
        page = await store.search_events(**narrowed)
        return "".join(event.kind for event in page.events)

    assert await kinds() == "abcd"
    assert await kinds(after=2) == "cd"
    assert await kinds(after=4) == ""
    assert await kinds(limit=3) == "abc"
    assert await kinds(after=1, limit=2) == "bc"
    assert await kinds(since=30.0) == "bd"
    assert await kinds(since=20.0) == "bcd"
    assert await kinds(since=40.5) == ""
    assert await kinds(tool="read", agent="ann") == "ad"
    assert await kinds(call="hold_1") == "bc"
    assert await kinds(call="hold_1", agent="ann", since=15.0) == "c"
    assert [event.kind for event in await store.events(after=1, limit=2)] == ["b", "c"]
    assert [event.kind for event in await store.events(after=2, call="hold_1")] == ["c"]


@pytest.mark.parametrize(
    "matching, pages",
    [
        ({}, [[1, 2], [3, 4], [5, 6], [7, 8]]),
        ({"tool": "rare"}, [[2], [], [7, 8]]),
        ({"since": 25.0}, [[4], [7, 8]]),
        ({"since": 25.0, "agent": "ann"}, [[4], [8]]),
        ({"since": 90.0}, [[]]),
        ({"call": "hold_1"}, [[1, 7], []]),
        ({"call": "hold_1", "tool": "rare"}, [[7]]),
    ],
)
async def test_a_search_looks_at_a_limited_number_of_events_a_page_and_ends_with_every_match(
    store, monkeypatch, matching, pages
):
    monkeypatch.setattr(event_pages, "MAX_SEARCHED", 3)
    assert await store.search_events() == EventPage([], 0, at_end=True)
    for n, at in enumerate([10.0, 15.0, 20.0, 30.0, 20.0, 20.0, 40.0, 50.0], 1):
        rare, call = n in {2, 7, 8}, "hold_1" if n in {1, 7} else None
        await store.append(
            an_event(at=at, tool="rare" if rare else "often", agent="bob" if n == 7 else "ann", call=call)
        )
    found, after, at_end = [], 0, False
    while not at_end:
        page = await store.search_events(after=after, limit=2, **matching)
        found.append([event.seq for event in page.events])
        after, at_end = page.next, page.at_end
    assert (found, after) == (pages, 8)
    assert await store.search_events(after=9, **matching) == EventPage([], 9, at_end=True)


# Notices


async def stale(store, channel="slack", now=1000.0):
    return [
        (call.id, notice and notice.shown_version) for call, notice in await store.stale_calls(channel, now)
    ]


async def test_an_open_call_is_stale_on_every_channel_until_it_is_shown_there(store):
    one, two = await added(store, a_call(), a_call(state=State.APPROVED))
    await store.save_notice(Notice(call=one.id, channel="slack", ref="m1", shown_version=1))
    assert await store.stale_calls("slack", 0.0) == [(summarize(two), None)]
    assert await store.stale_calls("hook", 0.0) == [(summarize(one), None), (summarize(two), None)]


async def test_a_shown_call_that_changed_is_stale_even_when_settled(store):
    (call,) = await added(store, a_call())
    notice = Notice(call=call.id, channel="slack", ref="m1", shown_version=1)
    await store.save_notice(notice)
    denied = advance(call, State.DENIED, 5.0)
    await store.swap(call, denied)
    assert await store.stale_calls("slack", 0.0) == [(summarize(denied), notice)]
    assert await store.stale_calls("hook", 0.0) == []
    await store.save_notice(replace(notice, shown_version=2))
    assert await stale(store) == []
    await store.swap(denied, update(denied, collected=True))
    assert await stale(store) == [(call.id, 2)]


async def test_an_open_call_that_changed_since_it_was_shown_is_stale_once(store):
    (call,) = await added(store, a_call())
    await store.save_notice(Notice(call=call.id, channel="slack", ref="m1", shown_version=1))
    await store.swap(call, update(call, note="later"))
    assert await stale(store) == [(call.id, 1)]


async def test_a_call_in_doubt_is_stale_on_channels_that_never_showed_it(store):
    (call,) = await added(store, a_call(state=State.IN_DOUBT))
    assert await stale(store) == [(call.id, None)]


async def test_a_call_whose_posting_failed_waits_for_its_retry_time(store):
    (call,) = await added(store, a_call())
    failed = Notice(call=call.id, channel="slack", failures=2, retry_at=100.0)
    await store.save_notice(failed)
    assert await store.stale_calls("slack", 99.9) == []
    assert await store.stale_calls("slack", 100.0) == [(summarize(call), failed)]


async def test_a_settled_call_whose_update_failed_waits_for_its_retry_time(store):
    (call,) = await added(store, a_call())
    await store.swap(call, advance(call, State.EXPIRED, 5.0))
    await store.save_notice(
        Notice(call=call.id, channel="slack", ref="m1", shown_version=1, failures=1, retry_at=100.0)
    )
    assert await stale(store, now=99.9) == []
    assert await stale(store, now=100.0) == [(call.id, 1)]


async def test_a_call_settled_before_it_was_posted_is_not_stale(store):
    (call,) = await added(store, a_call())
    await store.save_notice(Notice(call=call.id, channel="slack", failures=1, retry_at=0.0))
    await store.swap(call, advance(call, State.CANCELLED, 5.0))
    assert await stale(store) == []
    assert await stale(store, "hook") == []


async def other_presence(store, now=100.0):
    return [notice.call for notice in await store.notices_with_stale_presence("slack", now)]


async def test_a_notice_is_returned_while_it_shows_a_stale_presence(store):
    shows_client, shows_none = await added(store, a_call(), a_call())
    await store.save_notice(Notice(call=shows_client.id, channel="slack", ref="m1", shown_attended=True))
    await store.save_notice(Notice(call=shows_none.id, channel="slack", ref="m2", shown_attended=False))
    assert await other_presence(store) == [shows_client.id]
    await store.renew_replica("a", 100.0, 130.0)
    await store.save_presence("a", [shows_client.id, shows_none.id], [])
    assert await other_presence(store) == [shows_none.id]
    assert await other_presence(store, now=130.0) == [shows_client.id], "the replica's lease is over"
    await store.save_presence("a", [], [shows_client.id])
    assert await other_presence(store) == [shows_client.id, shows_none.id]
    assert await store.notices_with_stale_presence("hook", 100.0) == []


async def test_a_notice_of_an_earlier_version_shows_an_unknown_presence(store):
    left, attended = await added(store, a_call(), a_call())
    await store.renew_replica("a", 100.0, 130.0)
    await store.save_presence("a", [attended.id], [])
    notices = [Notice(call=call.id, channel="slack", ref="m1", shown_version=1) for call in (left, attended)]
    for notice in notices:
        await store.save_notice(notice)
    assert await store.notices_with_stale_presence("slack", 100.0) == notices


async def test_only_posted_notices_of_pending_calls_are_compared_with_the_presence(store):
    approved, unposted, failed = await added(store, a_call(state=State.APPROVED), a_call(), a_call())
    for call, fields in (
        (approved, {"ref": "m1"}),
        (unposted, {}),
        (failed, {"ref": "m3", "failures": 1, "retry_at": 100.0}),
    ):
        await store.save_notice(Notice(call=call.id, channel="slack", shown_attended=True, **fields))
    assert await other_presence(store, now=99.9) == []
    assert await other_presence(store, now=100.0) == [failed.id]


async def test_a_notice_replaces_the_previous_one_of_its_call_and_channel(store):
    (call,) = await added(store, a_call())
    notice = Notice(call=call.id, channel="slack", ref="m1", failures=3, retry_at=7.5)
    await store.save_notice(Notice(call=call.id, channel="slack"))
    await store.save_notice(notice)
    assert await store.stale_calls("slack", 7.5) == [(summarize(call), notice)]
    assert await store.stale_calls("hook", 7.5) == [(summarize(call), None)]


async def test_stale_calls_come_oldest_first(store):
    old, new, newest = await added(store, a_call(), a_call(), a_call())
    await store.save_notice(Notice(call=old.id, channel="slack", ref="m1", shown_version=1))
    await store.swap(old, advance(old, State.DENIED, 5.0))
    assert [call_id for call_id, _ in await stale(store)] == [old.id, new.id, newest.id]


# Rate limits and logins


async def test_hits_are_returned_oldest_first_until_they_end(store):
    store.add_hit("b", 20.0, 80.0)
    store.add_hit("a", 10.0, 70.0, 2.5)
    store.add_hit("a", 20.0, 75.0)
    assert await store.hits(50.0) == [("a", 10.0, 2.5), ("b", 20.0, 1), ("a", 20.0, 1)]
    assert await store.hits(70.0) == [("b", 20.0, 1), ("a", 20.0, 1)]
    assert await store.hits(80.0) == []


async def test_a_hit_drops_the_hits_that_have_ended(store):
    store.add_hit("a", 10.0, 70.0)
    store.add_hit("a", 70.0, 170.0)
    assert await store.hits(0.0) == [("a", 70.0, 1)]


def a_login(id_sha256="s1", *, approver="alice", created_at=10.0, expires_at=100.0):
    return LoginSession(
        id_sha256=id_sha256,
        approver=approver,
        created_at=created_at,
        expires_at=expires_at,
        seen_at=created_at,
    )


def a_code(id_sha256="c1", *, created_at=10.0, expires_at=100.0):
    return OneTimeCode(id_sha256=id_sha256, approver="bob", created_at=created_at, expires_at=expires_at)


async def test_a_login_is_saved_replaced_and_deleted(store):
    session = a_login()
    await store.save_login(session)
    assert await store.find_login("s1") == session
    longer = replace(session, expires_at=200.0)
    await store.save_login(longer)
    assert await store.find_login("s1") == longer
    await store.delete_login("s1")
    await store.delete_login("never")
    assert await store.find_login("s1") is None


async def test_a_login_drops_expired_logins(store):
    await store.save_login(a_login("s1"))
    await store.save_login(a_login("s2", approver="bob", created_at=100.0, expires_at=200.0))
    assert await store.find_login("s1") is None
    assert (await store.find_login("s2")).approver == "bob"


async def test_the_activity_of_a_login_only_moves_forward(store):
    await store.save_login(a_login())
    for at, seen_at in ((50.0, 50.0), (40.0, 50.0), (60.0, 60.0)):
        store.record_activity("s1", at)
        await store.check()
        assert await store.find_login("s1") == replace(a_login(), seen_at=seen_at)


async def test_activity_does_not_bring_a_deleted_login_back(store):
    await store.save_login(a_login())
    await store.delete_login("s1")
    store.record_activity("s1", 50.0)
    await store.check()
    assert await store.find_login("s1") is None


async def test_a_one_time_code_is_taken_once(store):
    await store.save_code(a_code())
    assert await store.take_code("another") is None
    assert await store.take_code("c1") == a_code()
    assert await store.take_code("c1") is None


async def test_one_of_many_callers_gets_the_code(store):
    await store.save_code(a_code())
    taken = await asyncio.gather(*(store.take_code("c1") for _ in range(20)))
    assert [code for code in taken if code] == [a_code()]


async def test_a_code_drops_expired_codes(store):
    await store.save_code(a_code("c1"))
    await store.save_code(a_code("c2", created_at=99.0, expires_at=200.0))
    await store.save_code(a_code("c3", created_at=100.0, expires_at=200.0))
    assert [await store.take_code(one) is not None for one in ("c1", "c2", "c3")] == [False, True, True]


async def test_a_reset_of_the_time_moves_later_dates_back(store):
    call = a_call()
    await store.add(call)
    await store.save_notice(Notice(call=call.id, channel="slack", failures=1, retry_at=900.0))
    store.add_hit("early", 10.0, 70.0)
    store.add_hit("late", 60.0, 120.0)
    await store.save_login(a_login("early"))
    await store.save_login(a_login("late", created_at=60.0))
    await store.save_code(a_code("early"))
    await store.save_code(a_code("late", created_at=60.0))
    store.record_activity("early", 60.0)
    await store.reset_time(50.0, an_event("clock.reset"))
    assert await store.highest_time() == 50.0
    assert await store.hits(69.0) == [("early", 10.0, 1), ("late", 50.0, 1)]
    assert await store.hits(109.0) == [("late", 50.0, 1)]
    assert await store.hits(110.0) == []
    assert await store.find_login("early") == replace(a_login("early"), seen_at=50.0)
    assert await store.take_code("early") == a_code("early")
    assert await store.find_login("late") is await store.take_code("late") is None
    assert await stale(store, now=50.0) == [(call.id, 0)]


# Readiness


async def test_a_store_that_can_commit_is_ready(store):
    await store.check()
    await store.check()


async def test_a_secret_is_created_once_and_kept(store):
    first = await store.secret("rounds")
    assert (len(first), await store.secret("rounds")) == (32, first)
    assert await store.secret("other") != first


async def test_a_pin_replaces_the_previous_pin_of_its_tool(store):
    pins = [
        Pin(server=server, tool=tool, hash=hashed, definition=b"{}")
        for server, tool, hashed in [("a", "x", "1"), ("a", "y", "1"), ("b", "x", "1"), ("a", "x", "2")]
    ]
    for pin in pins:
        store.save_pin(pin)
    await store.append()
    assert sorted(await store.pins(), key=lambda pin: (pin.server, pin.tool)) == [pins[3], pins[1], pins[2]]


async def test_an_agents_session_is_kept_until_it_ends_or_is_very_old(store):
    first = AgentSession(server="iam", id="s1", agent="ci", opening=b"{}", at=1.0)
    for session in (first, replace(first, server="github", agent="other"), replace(first, id="s2", at=2.0)):
        await store.save_session(session)
    assert await store.find_session("iam", "s1") == first
    assert (await store.find_session("github", "s1")).agent == "other"
    assert await store.find_session("iam", "s3") is None
    store.delete_session("github", "s1")
    assert await store.find_session("github", "s1") is None
    await store.save_session(replace(first, id="s4", at=1.0 + SESSION_LIFE))
    assert await store.find_session("iam", "s1") is None
    assert (await store.find_session("iam", "s2")).at == 2.0
