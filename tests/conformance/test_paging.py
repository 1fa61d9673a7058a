"""Following the pages of a list finds every match once, while calls are added and decided."""

from functools import partial
from random import Random

import pytest

from approvals.lifecycle import advance
from approvals.model import CallId, State
from approvals.store.call_lists import Page
from approvals.store.memory import store as memory
from approvals.store.sqlite import lists
from store_fixtures import a_call

AGENTS, SERVERS, TOOLS = ("ann", "bob"), ("one", "two"), ("read", "write")
STATES = (State.PENDING, State.APPROVED, State.DENIED)


class History:
    """A store, and a naive list of the calls in it."""

    def __init__(self, store, random):
        self.store = store
        self.random = random
        self.calls = []

    async def change(self):
        """Add a call or decide one."""
        place = self.random.randrange(-len(self.calls) - 1, len(self.calls))
        if place < 0:
            names = {"agent": AGENTS, "server": SERVERS, "tool": TOOLS}
            self.calls.append(a_call(**{name: self.random.choice(some) for name, some in names.items()}))
            await self.store.add(self.calls[-1])
        elif (call := self.calls[place]).state is State.PENDING:
            self.calls[place] = advance(call, self.random.choice(STATES[1:]), 1.0)
            await self.store.swap(call, self.calls[place])

    def matching(self, states, given):
        return {call.id for call in self.calls if is_match(call, states, **given)}


def is_match(call, states, text="", **names):
    wanted = all(getattr(call.call, name) == value for name, value in names.items())
    return (
        wanted
        and (not states or call.state in states)
        and (text in call.call.tool or text in call.call.agent)
    )


def draw(random):
    choices = {"agent": AGENTS, "server": SERVERS, "tool": TOOLS, "text": ("r", "ann", "none")}
    return {name: random.choice(some) for name, some in choices.items() if random.random() < 0.3}


@pytest.mark.parametrize("seed", range(40))
async def test_following_the_pages_finds_every_match_once_while_calls_change(store, seed, monkeypatch):
    for module in (memory, lists):
        monkeypatch.setattr(module, "MAX_SEARCHED", 5)
    random = Random(seed)
    history = History(store, random)
    for _ in range(random.randrange(40)):
        await history.change()
    for read in (store.summaries, partial(store.select, room=9000)):
        states, given = random.choices(STATES, k=random.randrange(4)), draw(random)
        always = ever = history.matching(states, given)
        found, page = [], Page([], None)
        while not found or page.next:
            page = await read(states, limit=random.choice([1, 2, 9]), before=page.next, **given)
            found.append([call.id for call in page.items])
            for _ in range(random.randrange(3)):
                await history.change()
                always = always & history.matching(states, given)
                ever = ever | history.matching(states, given)
        ids = [call_id for page in found for call_id in page]
        assert ids == sorted(set(ids), reverse=True)
        assert always <= set(ids) <= ever


async def test_no_call_comes_before_an_unknown_one(store):
    await store.add(a_call())
    for given in ({}, {"agent": "bot"}, {"text": "b"}):
        for states in ([], [State.PENDING]):
            assert await store.select(states, before=CallId("unknown"), **given) == Page([], None)
