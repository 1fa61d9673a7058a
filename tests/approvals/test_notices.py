"""The reconcilers of the channels: each shows the newest version, independently of the others, from one replica."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from approval_fixtures import Clock, directory, held
from approvals.lifecycle import update
from approvals.model import State
from approvals.notices import PRESENCE_DELAY, Notices
from approvals.presence import MIN_ATTENDED
from approvals.replica import LEASE, MARGIN
from approvals.service import ApprovalService
from approvals.signals import Signal, SignalKind
from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from hang import HANG


class Shown:
    """A channel that shows everything at once."""

    shows_presence = True

    def __init__(self, name):
        self.name = name
        self.posted = asyncio.Queue()

    async def post(self, card):
        self.posted.put_nowait(card.id)
        return card.id


class Stuck(Shown):
    """A channel that never finishes its first card."""

    async def post(self, card):
        await super().post(card)
        await asyncio.Event().wait()


@asynccontextmanager
async def going_round(*channels):
    clock = Clock()
    service = ApprovalService(MemoryStore(), directory(), clock=clock)
    running = asyncio.ensure_future(Notices(service, service.store, channels, url="").run())
    try:
        async with asyncio.timeout(HANG):
            yield service, clock
    finally:
        running.cancel()
        await service.store.close()


async def test_a_slow_channel_does_not_delay_another():
    stuck, quick = Stuck("stuck"), Shown("quick")
    async with going_round(stuck, quick) as (service, clock):
        first = await service.hold(held(clock.now))
        assert (await stuck.posted.get(), await quick.posted.get()) == (first.id, first.id)
        second = await service.hold(held(clock.now, tool="other"))
        assert await quick.posted.get() == second.id


async def test_a_change_whose_signal_was_lost_is_shown_after_resync(monkeypatch):
    monkeypatch.setattr("approvals.notices.ROUND", 10 * HANG)
    quick = Shown("quick")
    async with going_round(quick) as (service, clock):
        first = await service.hold(held(clock.now))
        assert await quick.posted.get() == first.id
        lost = held(clock.now, tool="other")
        monkeypatch.setattr(service.store._feed, "publish", lambda _: None)
        await service.hold(lost)
        monkeypatch.undo()
        service.store.announce(Signal(SignalKind.RESYNC))
        assert await quick.posted.get() == lost.id


# Two replicas.


class Board:
    """A channel of several replicas: its messages, and the (message, version, attended) of every post and update."""

    name = "board"

    def __init__(self, *, shows_presence=True):
        self.shows_presence = shows_presence
        self.messages, self.shown = {}, []
        #: Run in the middle of each post.
        self.while_posting = lambda: None

    async def post(self, card):
        return await self.update(f"m{len(self.messages) + 1}", card)

    async def update(self, ref, card):
        self.while_posting()
        self.messages[ref] = card
        self.shown.append((ref, card.version, card.attended))
        return ref


class Replica:
    """A service and its notices, on the shared store and channel."""

    def __init__(self, store, clock, board):
        self.service = ApprovalService(store, directory(), clock=clock)
        self.notices = Notices(self.service, store, [board], url="")

    async def round(self):
        await self.service.sweep()
        await self.notices.bring_up_to_date()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    store = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "okayed.db")
    yield store
    await store.close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def replicas(store, clock, board):
    return [Replica(store, clock, board) for _ in "ab"]


async def test_two_replicas_post_each_version_of_a_card_once(replicas, clock, board):
    a, b = replicas
    call = await b.service.hold(held(clock.now))
    await asyncio.gather(a.round(), b.round())
    await asyncio.gather(b.round(), a.round())
    await a.service.attach_task(call.id)
    await asyncio.gather(b.round(), a.round())
    assert board.shown == [("m1", 1, True), ("m1", 2, True)]


async def test_after_a_crash_of_the_holder_another_replica_updates_its_cards(replicas, clock, board):
    a, b = replicas
    call = await a.service.hold(held(clock.now))
    await a.round()
    await b.service.cancel(call.id, "the agent left", actor="ci-bot")
    clock.now += LEASE - 1
    await b.round()
    assert board.shown == [("m1", 1, True)]
    clock.now += 1
    await b.round()
    assert [(ref, version) for ref, version, _ in board.shown] == [("m1", 1), ("m1", 2)]
    assert board.messages["m1"].state is State.CANCELLED
    await a.round()
    assert len(board.shown) == 2


async def test_a_holder_that_stops_leaves_its_channels_at_once(replicas, clock, board):
    a, b = replicas
    await a.round()
    await a.service.hold(held(clock.now))
    await b.round()
    assert board.shown == []
    await a.service.replica.end()
    await b.round()
    assert board.shown == [("m1", 1, True)]


@pytest.mark.parametrize("suspended", [LEASE - MARGIN, LEASE, 10 * LEASE])
async def test_a_holder_that_was_suspended_between_two_posts_posts_nothing_more(
    replicas, clock, board, suspended
):
    a, b = replicas
    calls = [await a.service.hold(held(clock.now, tool=f"t{n}")) for n in range(3)]

    def suspend():
        board.while_posting = lambda: None
        clock.now += suspended

    board.while_posting = suspend
    await a.round()
    assert [card.id for card in board.messages.values()] == [calls[0].id]
    clock.now += LEASE
    await b.round()
    assert [card.id for card in board.messages.values()] == [call.id for call in calls]


async def test_a_replica_that_was_suspended_within_its_lease_goes_on_with_the_next_round(
    replicas, clock, board
):
    a, _ = replicas
    await a.service.hold(held(clock.now))
    await a.service.hold(held(clock.now, tool="other"))

    def suspend():
        board.while_posting = lambda: None
        clock.now += LEASE - MARGIN

    board.while_posting = suspend
    await a.round()
    await a.round()
    assert len(board.messages) == 2


# Presence.


async def pass_time(clock, *replicas, seconds):
    """Let each replica do its rounds for some seconds."""
    for _ in range(int(seconds)):
        clock.now += 1
        for replica in replicas:
            await replica.round()


async def test_a_card_is_updated_when_its_client_has_been_gone_and_back_for_a_while(replicas, clock, board):
    a, b = replicas
    call = await b.service.hold(held(clock.now))
    with b.service.attend(call.id):
        await pass_time(clock, a, b, seconds=3 * MIN_ATTENDED)
        assert board.shown == [("m1", 1, True)]
    await pass_time(clock, a, b, seconds=PRESENCE_DELAY)
    assert board.shown == [("m1", 1, True)], "the client has not been gone for long"
    await pass_time(clock, a, b, seconds=2)
    assert board.shown == [("m1", 1, True), ("m1", 1, False)]
    await pass_time(clock, a, b, seconds=3 * MIN_ATTENDED)
    with b.service.attend(call.id):
        await pass_time(clock, a, b, seconds=PRESENCE_DELAY + 2)
    assert board.shown == [("m1", 1, True), ("m1", 1, False), ("m1", 1, True)]
    assert await a.service.store.version(call.id) == call.version


async def test_a_client_that_comes_and_goes_does_not_update_the_card(replicas, clock, board):
    a, b = replicas
    call = await b.service.hold(held(clock.now))
    for _ in range(10):
        with b.service.attend(call.id):
            await pass_time(clock, a, b, seconds=3)
        await pass_time(clock, a, b, seconds=3)
    assert board.shown == [("m1", 1, True)]


async def test_the_clients_of_a_crashed_replica_are_gone_from_the_card(replicas, clock, board):
    a, b = replicas
    call = await b.service.hold(held(clock.now))
    with b.service.attend(call.id):
        await pass_time(clock, a, b, seconds=3 * MIN_ATTENDED)
        await pass_time(clock, a, seconds=LEASE + PRESENCE_DELAY + 1)
    assert board.shown == [("m1", 1, True), ("m1", 1, False)]


async def test_a_decided_call_is_not_updated_for_its_client(replicas, clock, board):
    a, _ = replicas
    call = await a.service.hold(held(clock.now))
    await a.round()
    await a.service.cancel(call.id, "the agent left", actor="ci-bot")
    await pass_time(clock, a, seconds=3 * PRESENCE_DELAY)
    assert [version for _, version, _ in board.shown] == [1, 2]


async def test_a_channel_that_does_not_show_presence_is_not_updated_for_it(store, clock):
    board = Board(shows_presence=False)
    a = Replica(store, clock, board)
    call = await a.service.hold(held(clock.now))
    await pass_time(clock, a, seconds=3 * PRESENCE_DELAY)
    assert board.shown == [("m1", 1, True)]
    await store.swap(call, update(call, note="later"))
    await a.round()
    assert board.shown == [("m1", 1, True), ("m1", 2, False)]


async def test_many_changes_within_a_second_compare_the_presence_once(replicas, store, clock):
    a, _ = replicas
    compared, compare = [], store.notices_with_stale_presence

    async def count(channel, now):
        compared.append(now)
        return await compare(channel, now)

    store.notices_with_stale_presence = count
    for _ in range(10):
        await a.service.hold(held(clock.now))
        await a.round()
    clock.now += 1
    await a.round()
    assert compared == [clock.now - 1, clock.now]


async def test_a_card_whose_update_fails_is_tried_again(replicas, clock, board):
    a, _ = replicas
    await a.service.hold(held(clock.now))
    await a.round()

    def fail():
        board.while_posting = lambda: None
        raise OSError

    board.while_posting = fail
    await pass_time(clock, a, seconds=4 * PRESENCE_DELAY)
    assert board.shown == [("m1", 1, True), ("m1", 1, False)]
