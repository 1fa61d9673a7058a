"""What a server says while a call runs: bounded, whoever reads or does not."""

from gateway.hold import event_buffer
from gateway.hold.event_buffer import EventBuffer


async def test_what_a_server_says_comes_in_order_and_ends():
    said = EventBuffer()
    for event in (b"a", b"", b"b", None):
        said.put(event)
    assert [await said.get() for _ in range(4)] == [b"a", b"", b"b", None]


async def test_what_nobody_takes_is_dropped_but_its_end_is_not(monkeypatch):
    monkeypatch.setattr(event_buffer, "MAX_BYTES", 4)
    said = EventBuffer()
    for event in (b"abc", b"def", b"dropped", None):
        said.put(event)
    assert [await said.get() for _ in range(3)] == [b"abc", b"def", None]
    said.put(b"there is room again")
    assert await said.get() == b"there is room again"
