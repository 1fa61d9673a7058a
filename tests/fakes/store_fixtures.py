"""An open SQLite store, sample held calls and audit events; a test sets only the fields that matter to it."""

from contextlib import asynccontextmanager
from itertools import count

from approvals.model import (
    AuditEvent,
    CallId,
    Classification,
    Decision,
    HeldCall,
    Outcome,
    Review,
    State,
    Terms,
    ToolCall,
)
from approvals.store.sqlite.store import SqliteStore
from replacing import replace

_numbers = count(1)


@asynccontextmanager
async def open_sqlite(path, **options):
    """Open a SQLite store, and close it if the test succeeds."""
    store = await SqliteStore.open(path, **options)
    yield store
    await store.close()


def a_call(number=None, *, agent="bot", server="github", tool="delete_repo", arguments=b"{}", **fields):
    """Return a pending call; ids sort in the order of creation."""
    number = next(_numbers) if number is None else number
    plain = HeldCall(
        id=CallId(f"hold_{number:026d}"),
        call=ToolCall(agent=agent, server=server, tool=tool, arguments=arguments),
        terms=Terms(approvers=frozenset({"alice", "bob"})),
        classification=Classification(),
        rule="ask",
        key=f"key {number}",
        digest="what was shown",
        created_at=1000.0,
        expires_at=1900.0,
    )
    return replace(plain, **fields)


def a_full_call(**fields):
    """Return a call with every field set, and bytes that only an exact store preserves."""
    return a_call(
        arguments=b'{"a":1.0,"b":"\x00\xe2\x80\xa8","a\\u0000":[0.1000000000000000055511151231257827,-0]} ',
        state=State.COMPLETED,
        version=7,
        classification=Classification(
            category="Destructive", risk="High", severity="critical", evidence=("delete",)
        ),
        reason="It deletes.\nReally.",
        policy_revision="p1",
        definition="d1",
        decided_at=1001.25,
        settled_at=1002.5,
        reviews=(
            Review(approver="alice", answer=Decision.APPROVE, reason="\x00né\u202e", at=1001.25, via="slack"),
        ),
        outcome=Outcome(is_error=False, body=b'{"content":"\xc3\xa9"}'),
        note="a note",
        collected=True,
        twin=CallId("hold_before"),
        twin_at=12.5,
        **fields,
    )


def an_event(kind="call.allowed", **fields):
    """Return an audit event without a number."""
    plain = AuditEvent(at=1000.0, kind=kind, actor="bot", agent="bot", server="github", tool="get_repo")
    return replace(plain, **fields)
