"""The bounded buffer of a server's notifications during a run."""

from gateway.hold import event_buffer
from gateway.hold.event_buffer import EventBuffer


async def test_events_arrive_in_order_and_end():
    said = EventBuffer()
    for event in (b"a", b"", b"b", None):
        said.put(event)
    assert [await said.get() for _ in range(4)] == [b"a", b"", b"b", None]


async def test_events_beyond_the_limit_are_dropped_but_not_the_end(monkeypatch):
    monkeypatch.setattr(event_buffer, "MAX_BYTES", 4)
    said = EventBuffer()
    for event in (b"abc", b"def", b"dropped", None):
        said.put(event)
    assert [await said.get() for _ in range(3)] == [b"abc", b"def", None]
    said.put(b"there is room again")
    assert await said.get() == b"there is room again"
