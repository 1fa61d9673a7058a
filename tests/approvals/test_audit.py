import hashlib
import hmac
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals import audit
from approvals.audit import BrokenLink, Checkpoint
from approvals.errors import StoreError
from approvals.model import AuditEvent
from approvals.store.sqlite import read_only
from approvals.store.sqlite.store import SqliteStore
from linked_events import link_event
from replacing import replace
from rows import each_row
from store_fixtures import an_event


def chain(length=5, key=b"", **fields):
    """Return a complete trail."""
    events, prev = [], ""
    for seq in range(1, length + 1):
        events.append(link_event(an_event(f"kind {seq}", **fields), seq, prev, key))
        prev = events[-1].hash
    return events


def edited(seq, **fields):
    return lambda events: [replace(one, **fields) if one.seq == seq else one for one in events]


def relinked(events, key=b""):
    """Hash every event again, as a forger with access to the file would."""
    made = []
    for seq, event in enumerate(events, 1):
        made.append(link_event(event, seq, made[-1].hash if made else "", key))
    return made


DAMAGE = {
    "time": (edited(3, at=1000.5), BrokenLink(seq=3, why="its content was changed")),
    "kind": (edited(3, kind="call.denied"), BrokenLink(seq=3, why="its content was changed")),
    "actor": (edited(1, actor="nobody"), BrokenLink(seq=1, why="its content was changed")),
    "call": (edited(2, call="hold_1"), BrokenLink(seq=2, why="its content was changed")),
    "agent": (edited(2, agent="x"), BrokenLink(seq=2, why="its content was changed")),
    "server": (edited(2, server="x"), BrokenLink(seq=2, why="its content was changed")),
    "tool": (edited(5, tool="x"), BrokenLink(seq=5, why="its content was changed")),
    "detail": (edited(5, detail={"n": 1.0}), BrokenLink(seq=5, why="its content was changed")),
    "hash": (edited(4, hash="0" * 64), BrokenLink(seq=4, why="its content was changed")),
    "a hash that is none": (edited(4, hash="né"), BrokenLink(seq=4, why="its content was changed")),
    "link": (edited(4, prev="0" * 64), BrokenLink(seq=4, why="it does not follow the event before it")),
    "a trail before the first": (
        lambda _: [link_event(an_event(), 1, "0" * 64)],
        BrokenLink(seq=1, why="it does not follow the event before it"),
    ),
    "removed first": (lambda events: events[1:], BrokenLink(seq=1, why="event 2 is in its place")),
    "removed": (lambda events: events[:2] + events[3:], BrokenLink(seq=3, why="event 4 is in its place")),
    "reordered": (lambda events: [*events[:2], events[3], events[2], *events[4:]], BrokenLink(seq=3, why="event 4 is in its place")),
    "twice": (lambda events: events[:3] + events[2:], BrokenLink(seq=4, why="event 3 is in its place")),
    "inserted": (
        lambda events: [*events[:2], link_event(an_event(), 3, events[1].hash), *events[2:]],
        BrokenLink(seq=4, why="event 3 is in its place"),
    ),
    "replaced and hashed": (
        lambda events: [*events[:2], link_event(an_event("other"), 3, events[1].hash), *events[3:]],
        BrokenLink(seq=4, why="it does not follow the event before it"),
    ),
    "swapped contents": (
        lambda events: [replace(events[1], seq=1, prev=""), replace(events[0], seq=2, prev=events[0].prev), *events[2:]],
        BrokenLink(seq=1, why="its content was changed"),
    ),
}  # fmt: skip


def at(event):
    return Checkpoint(event.seq, event.hash)


WRITABLE = {"codec": "utf-8"}  # a lone surrogate cannot be written


@given(
    at=st.one_of(st.floats(), st.integers(0, 2**53)),
    names=st.fixed_dictionaries(
        {name: st.text(st.characters(**WRITABLE)) for name in ("kind", "actor", "agent", "server", "tool")}
    ),
    detail=st.dictionaries(
        st.text(st.characters(**WRITABLE)),
        st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(st.characters(**WRITABLE))),
        max_size=5,
    ),
)  # fmt: skip
def test_an_event_of_a_template_is_encoded_like_the_same_event(at, names, detail):
    entry = audit.EventTemplate(**names, detail=detail).at(at)
    event = audit.encode_event(AuditEvent(at=at, **names, detail=detail))
    assert repr(entry) == repr(event)  # a time that is not a number equals nothing
    assert [type(value) for value in entry.values] == [type(value) for value in event.values]


def test_a_template_of_what_cannot_be_written_is_refused():
    with pytest.raises(StoreError):
        audit.EventTemplate(kind="call.allowed", actor="claude", detail={"of": object()})


def test_a_checkpoint_is_read_as_it_is_printed():
    head = at(chain()[-1])
    assert Checkpoint.parse(f" {head}\n") == head
    for text in (
        "",
        "5",
        "5:",
        "5:abc",
        f"x:{head.hash}",
        f"-1:{head.hash}",
        f"٥:{head.hash}",
        f"5:{head.hash.upper()}",
    ):
        with pytest.raises(ValueError, match="is not a checkpoint"):
            Checkpoint.parse(text)


def test_an_unchanged_trail_verifies():
    assert audit.verify([]) is None
    assert audit.verify(chain()) is None
    assert audit.verify(chain(key=b"k"), b"k") is None
    assert audit.verify(chain(), checkpoint=at(chain()[-1])) is None
    assert audit.verify(chain(9), checkpoint=at(chain()[-1])) is None


@each_row(("damage", "broken"), DAMAGE.values())
def test_the_first_changed_event_is_named(damage, broken):
    assert audit.verify(damage(chain())) == broken


@each_row(("damage", "_"), DAMAGE.values())
def test_a_forger_without_the_key_cannot_rewrite_the_chain(damage, _):
    assert audit.verify(relinked(damage(chain(key=b"k")), b"guess"), b"k") == BrokenLink(
        seq=1, why="its content was changed"
    )


@each_row("cut", range(5))
def test_a_checkpoint_reveals_a_truncated_trail(cut):
    trail = chain()
    assert audit.verify(trail[:cut]) is None
    said = "the trail ends before event 5 of the checkpoint"
    assert audit.verify(trail[:cut], checkpoint=at(trail[-1])) == BrokenLink(seq=cut + 1, why=said)


def test_a_checkpoint_reveals_a_rewritten_trail():
    forged = relinked(edited(2, actor="nobody")(chain(7)))
    assert audit.verify(forged) is None
    said = "it is not the event of the checkpoint"
    assert audit.verify(forged, checkpoint=at(chain()[-1])) == BrokenLink(seq=5, why=said)


def test_a_trail_can_be_verified_from_its_middle():
    trail = chain()
    assert audit.verify(trail[2:], start=trail[2]) is None
    assert audit.verify(edited(4, actor="x")(trail)[2:], start=trail[2]).seq == 4


def test_the_hash_is_computed_as_the_module_docstring_says():
    event = link_event(an_event(call="hold_1", detail={"b": 1, "a": "é"}), 12, "ab")
    said = r'12 ab [1000.0,"call.allowed","bot","hold_1","bot","github","get_repo","{\"a\":\"é\",\"b\":1}"]'
    assert event.hash == hashlib.sha256(said.encode()).hexdigest()
    under_key = link_event(event, 12, "ab", b"key")
    assert under_key.hash == hmac.digest(b"key", said.encode(), "sha256").hex()


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.builds(
    lambda at, text, call, detail: an_event(at=at, actor=text, tool=text, call=call, detail=detail),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 2**40),
    st.text(),
    st.none() | st.text(),
    st.dictionaries(st.text(), json, max_size=4),
)


@given(events)
def test_an_event_is_unchanged_by_its_row_and_by_its_line(event):
    linked = link_event(event, 1, "")
    row = audit.encode_event(linked).to_row(1, "")
    assert audit.from_row(row) == linked
    line = audit.to_json_line(linked)
    assert audit.from_json_line(line) == linked
    assert audit.verify([audit.from_json_line(line)]) is None


@given(events)
def test_an_event_is_one_line_of_printable_characters(event):
    assert audit.to_json_line(event).decode().isprintable()


def test_characters_that_would_forge_a_line_are_escaped():
    line = audit.to_json_line(
        an_event(actor='a\nAPPROVED by root\r\x1b[2J\x7f\x85\u2028\u2029\u202e\U000e0041\x00"')
    )
    assert (
        b'"actor":"a\\nAPPROVED by root\\r\\u001b[2J\\u007f\\u0085\\u2028\\u2029\\u202e\\udb40\\udc41\\u0000\\""'
        in line
    )


@pytest.mark.parametrize("bad", [{"detail": {"a": object()}}, {"actor": "\ud800"}, {"at": "noon"}])
def test_an_event_that_is_not_json_is_refused_at_once(bad):
    with pytest.raises(StoreError, match=r"^The audit event 'call.allowed' cannot be written: .*\.$"):
        audit.encode_event(an_event(**bad))


# Reading files


async def trail_of(path, length=5):
    store = await SqliteStore.open(path)
    await store.append(*(an_event(f"kind {number}") for number in range(1, length + 1)))
    return store


async def test_a_store_is_read_with_and_without_a_running_gateway_and_no_file_is_left_behind(
    tmp_path,
):
    path = tmp_path / "okayed.db"
    store = await trail_of(path)
    before = sorted(one.name for one in tmp_path.iterdir())
    assert [event.kind for event in read_only.read_trail(path)] == [f"kind {seq}" for seq in range(1, 6)]
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    await store.append(an_event("later"))
    assert [event.kind for event in read_only.read_trail(path, after=5)] == ["later"]
    await store.close()
    before = sorted(one.name for one in tmp_path.iterdir())
    assert audit.verify(read_only.read_trail(path)) is None
    assert [event.seq for event in read_only.read_trail(path, after=4)] == [5, 6]
    assert sorted(one.name for one in tmp_path.iterdir()) == before == ["okayed.db", "okayed.db.lock"]


async def test_a_change_in_the_file_is_detected_by_a_reader(tmp_path):
    path = tmp_path / "okayed.db"
    await (await trail_of(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("DELETE FROM events WHERE seq = 2")
    assert audit.verify(read_only.read_trail(path)) == BrokenLink(seq=2, why="event 3 is in its place")


def test_an_export_is_read_like_the_store(tmp_path):
    path = tmp_path / "trail.jsonl"
    path.write_bytes(b"".join(audit.to_json_line(event) + b"\n" for event in chain()))
    assert list(read_only.read_trail(path)) == chain()
    assert list(read_only.read_trail(path, after=3)) == chain()[3:]


@pytest.mark.parametrize(
    "content", [b"listen: 127.0.0.1\n", b'{"at":1}\n', b"SQLite format 3\x00 and no more", b"\xff\xfe\n"]
)
def test_a_file_without_a_trail_is_refused(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(StoreError) as refused:
        list(read_only.read_trail(path))
    assert str(refused.value).startswith(f"{path} has no readable audit trail: ")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="No such file"):
        list(read_only.read_trail(tmp_path / "no"))


def test_a_database_of_another_program_is_refused(tmp_path):
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE events (seq INTEGER, note TEXT)")
        db.execute("INSERT INTO events VALUES (1, 'x')")
        db.commit()
    with pytest.raises(StoreError, match="has no readable audit trail"):
        list(read_only.read_trail(path))
