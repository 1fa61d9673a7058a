"""The history of a busy store, as values: finished calls, their notices and audit events; `fill` writes it."""

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace
from ulid import ULID

from approvals import digest
from approvals.call_events import change_event
from approvals.model import (
    AuditEvent,
    CallId,
    Classification,
    Decision,
    HeldCall,
    Notice,
    Outcome,
    Review,
    State,
    Terms,
    ToolCall,
)
from approvals.store.sqlite.store import SqliteStore

HOUR, DAY = 3600.0, 86400.0
#: Seconds since the history began. It ends two hours ago, so that the last hour has only the run's own events.
PAST = 90 * DAY
ARGUMENT_BYTES, OUTCOME_BYTES = 400, 800
#: Open calls, and the states of every twenty of them. Fewer than the 200 that the front page can show are pending or in
#: doubt, so its query reads to the end of its index: the slowest case.
OPEN_CALLS = 300
OPEN_STATES = (State.IN_DOUBT, *[State.APPROVED] * 9, *[State.PENDING] * 10)
#: Calls that are written together, so that they share commits.
CHUNK = 1000
#: The agent of four fifths of the calls, and the other agents.
BUSY, QUIET = "busy", tuple(f"quiet-{number}" for number in range(20))
TOOLS = (("bench", "create_thing"), ("mail", "send_message"), ("github", "merge_pull_request"))
#: Final states and their shares of every hundred calls. The oldest three calls are in the rare state.
SHARES = ((State.COMPLETED, 90), (State.DENIED, 5), (State.EXPIRED, 4), (State.UPSTREAM_ERROR, 1))
RARE, RARE_CALLS = State.NOT_SENT, 3
#: The states on the way to each final state.
RAN = (State.APPROVED, State.FORWARDING)
PATHS = {State.COMPLETED: RAN, State.UPSTREAM_ERROR: RAN, State.NOT_SENT: RAN}


def build_json(number: int, size: int) -> bytes:
    """Return a JSON object of *size* bytes."""
    text = json.dumps({"number": number, "text": ""})
    return text.replace('""', f'"{"lorem ipsum " * size}'[: size - len(text) + 1] + '"').encode()


def build_call(number: int, at: float, agent: str = "") -> HeldCall:
    """Return a pending call; without *agent*, four of five calls are the busy agent's."""
    server, tool = TOOLS[number % len(TOOLS)]
    name = agent or (BUSY if number % 5 else QUIET[number // 5 % len(QUIET)])
    call = ToolCall(agent=name, server=server, tool=tool, arguments=build_json(number, ARGUMENT_BYTES))
    return HeldCall(
        id=CallId(f"hold_{ULID.from_timestamp(at)}".lower()),
        call=call,
        terms=Terms(approvers=frozenset({"bench"})),
        classification=Classification(category="Write", risk="High", evidence=("name: create",)),
        rule="default",
        key=digest.key(call),
        digest=digest.digest(call),
        created_at=at,
        expires_at=at + 7 * DAY,
    )


def final_state(number: int) -> State:
    if number < RARE_CALLS:
        return RARE
    place = number % 100
    for state, share in SHARES:
        if place < share:
            return state
        place -= share
    raise ValueError(number)


def finish_call(call: HeldCall, state: State) -> HeldCall:
    """Return a held call in its final state, ten minutes later."""
    at = call.created_at + 600
    answer = Decision.DENY if state is State.DENIED else Decision.APPROVE
    review = Review(approver="bench", answer=answer, at=at, via="inbox")
    body = json.dumps({"content": [{"type": "text", "text": "x" * (OUTCOME_BYTES - 42)}]}).encode()
    has_outcome = state in {State.COMPLETED, State.UPSTREAM_ERROR}
    return replace(
        call,
        state=state,
        version=2 + len(PATHS.get(state, ())),
        reviews=() if state is State.EXPIRED else (review,),
        decided_at=at,
        settled_at=at,
        outcome=Outcome(is_error=state is State.UPSTREAM_ERROR, body=body) if has_outcome else None,
        collected=True,
    )


def build_change_event(call: HeldCall, state: State) -> AuditEvent:
    at = call.settled_at or call.created_at
    return change_event(replace(call, state=state), "bench", at, f"hold.{state}")


def build_allowed_event(at: float) -> AuditEvent:
    detail = {"rule": "matrix", "category": "Read", "ms": 12}
    return AuditEvent(
        at=at, kind="call.allowed", actor=BUSY, agent=BUSY, server="bench", tool="get_thing", detail=detail
    )


# The filled file


def is_filled(store: Path, calls: int, events: int) -> bool:
    """Whether a complete earlier fill has these numbers; `fill` notes them beside the file."""
    note = store.with_name(f"{store.name}.filled")
    return store.exists() and note.exists() and json.loads(note.read_text()) == [calls, events]


async def fill(path: Path, calls: int, events: int) -> None:
    """Write the history through the store, and note its numbers beside the file."""
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    store, start, written = await SqliteStore.open(path), time.time() - PAST, 0
    for first in range(0, calls, CHUNK):
        numbers = range(first, min(first + CHUNK, calls))
        past = [build_call(number, start + number * (PAST - 2 * HOUR) / calls) for number in numbers]
        written += await write_history(store, past, numbers)
        last = past[-1].created_at
        missing = events * numbers.stop // calls - written
        await store.append(*(build_allowed_event(last) for _ in range(missing)))
        written += missing
    await store.close()
    path.with_name(f"{path.name}.filled").write_text(json.dumps([calls, events]))


async def write_history(store: SqliteStore, past: Sequence[HeldCall], numbers: range) -> int:
    """Write finished calls with their events and notices; returns the number of events."""
    final = [finish_call(call, final_state(number)) for call, number in zip(past, numbers, strict=True)]
    changes = [
        [build_change_event(call, state) for state in (*PATHS.get(call.state, ()), call.state)]
        for call in final
    ]
    await asyncio.gather(*(store.add(call, build_change_event(call, call.state)) for call in past))
    await asyncio.gather(
        *(store.swap(old, new, *events) for old, new, events in zip(past, final, changes, strict=True))
    )
    await asyncio.gather(
        *(
            store.save_notice(Notice(call=call.id, channel="slack", ref="C1:1", shown_version=call.version))
            for call in final
        )
    )
    return len(past) + sum(map(len, changes))


async def add_open_calls(path: Path) -> None:
    """Add the open calls. The gateway adds an event to most of them when it starts."""
    store, start = await SqliteStore.open(path), time.time() - 1.5 * HOUR
    for number in range(OPEN_CALLS):
        call = build_call(len(TOOLS) * number, start + number)
        call = advance_call(call, OPEN_STATES[number % len(OPEN_STATES)])
        await store.add(call, build_change_event(call, call.state))
    await store.close()


def advance_call(call: HeldCall, state: State) -> HeldCall:
    """Return an open call in its state."""
    at = call.created_at
    if state is State.PENDING:
        return call
    review = Review(approver="bench", answer=Decision.APPROVE, at=at, via="inbox")
    settled = at if state is State.IN_DOUBT else None
    return replace(call, state=state, reviews=(review,), decided_at=at, settled_at=settled)
