"""Uses of limits: counted in windows, kept in the store."""

import pytest

from approvals.errors import StoreError
from approvals.store.memory.store import MemoryStore
from gateway.call.limiter import WindowLimiter
from gateway.policy.limits import Limit, LimitScope, LimitUser, window_key

ME = LimitUser(agent="bot", session="s", server="notes", tool="get_note")
TWO = Limit(name="two", max=2, window=60.0)
SPEND = Limit(
    name="spend", max=10, window=3600.0, per=LimitScope.EVERYONE, argument="args.amount", amount=4.5
)
FREE = Limit(name="free", max=10, window=60.0, argument="args.amount", amount=0)


@pytest.fixture
def store():
    return MemoryStore()


async def test_each_use_is_stored_until_its_window_ends(store):
    limiter = await WindowLimiter.load(store, 100.0)
    assert await limiter.take([TWO, SPEND], ME, 100.0) is None
    two, spend = (window_key(limit, ME) for limit in (TWO, SPEND))
    assert await store.hits(159.9) == [(two, 100.0, 1.0), (spend, 100.0, 4.5)]
    assert await store.hits(160.0) == [(spend, 100.0, 4.5)]
    assert await store.hits(3700.0) == []


async def test_a_use_of_nothing_is_not_stored(store):
    limiter = await WindowLimiter.load(store, 100.0)
    assert await limiter.take([], ME, 100.0) is None
    assert await limiter.take([FREE], ME, 100.0) is None
    assert await store.hits(100.0) == []


async def test_a_call_over_one_limit_uses_none_of_them(store):
    limiter = await WindowLimiter.load(store, 100.0)
    for _ in range(2):
        assert await limiter.take([TWO], ME, 100.0) is None
    exceeded = await limiter.take([SPEND, TWO], ME, 110.0)
    assert (exceeded.limit, exceeded.retry_after) == (TWO, 50.0)
    assert [key for key, _, _ in await store.hits(110.0)] == [window_key(TWO, ME)] * 2


async def test_a_new_limiter_continues_with_the_stored_uses(store):
    limiter = await WindowLimiter.load(store, 100.0)
    for at in (100.0, 110.0):
        assert await limiter.take([TWO], ME, at) is None
    assert (await (await WindowLimiter.load(store, 120.0)).take([TWO], ME, 120.0)).retry_after == 40.0
    assert await (await WindowLimiter.load(store, 160.0)).take([TWO], ME, 160.0) is None


async def test_a_use_that_cannot_be_stored_is_an_error():
    class Full(MemoryStore):
        def add_hit(self, *_):
            raise StoreError("The store cannot keep up.")

    with pytest.raises(StoreError):
        await (await WindowLimiter.load(Full(), 0.0)).take([TWO], ME, 0.0)
