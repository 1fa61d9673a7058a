"""Prints the results of commands: tables on a terminal, JSON for scripts, with control characters escaped."""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from approvals import client_meta, safetext
from approvals.model import AuditEvent
from gateway.hold.messages import format_duration, format_rfc3339

#: The space between two columns.
GAP = "  "
#: The fields of a call that `print_call` prints first, in this order.
CALL_FIELDS = (
    "id", "state", "server", "tool", "agent", "owner", "category", "risk", "severity", "rule", "reason", "expires_at",
    "digest",
)  # fmt: skip
_COLOURS = {
    "deny": "red",
    "require_approval": "yellow",
    "allow": "green",
    "critical": "red",
    "high": "red",
    "medium": "yellow",
}


def open_console() -> Console:
    """Return the console on stdout; it uses colour only on a terminal, and not with NO_COLOR."""
    return Console(highlight=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print plain text."""
    sys.stdout.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2) + "\n")


def print_calls(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print held calls in a table."""
    if as_json:
        print_json(found)
        return
    if not found:
        open_console().print("Nothing is waiting.")
        return
    print_table(
        ("id", "server/tool", "agent", "category", "severity", "expires", "arguments"),
        map(_call_cells, found),
    )


def _call_cells(call: Mapping[str, Any]) -> Sequence[str]:
    where, left = f"{call['server']}/{call['tool']}", _time_left(call["expires_at"])
    short = safetext.one_line(call["arguments_text"], 60) if call["whole"] else "(large: okayed show ID)"
    return call["id"], where, call["agent"], call["category"], call["severity"], left, short


def print_call(call: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one held call in full."""
    if as_json:
        print_json(call)
        return
    facts = {**call, "state": _state(call)}
    lines = [f"{name:>10}  {facts[name] if facts[name] is not None else ''}" for name in CALL_FIELDS]
    lines += ["", *(f"  {sentence}" for sentence in call["evidence"]), "", call["arguments_text"]]
    lines += [f"also sent: {text}" for text in _extra_params(call)]
    if call["hidden"]:
        lines += ["", f"Hidden values: {call['hidden']}. To see them: okayed show {call['id']} --exact"]
    lines += map(_review_line, call["reviews"])
    open_console().print(Text("\n".join(map(safetext.escape_hidden, lines))))


def _review_line(review: Mapping[str, Any]) -> str:
    reason = f": {review['reason']}" if review["reason"] else ""
    done = "approved" if review["answer"] == "approve" else "denied"
    return f"{review['approver']} {done} via {review['via']}{reason}"


def _extra_params(call: Mapping[str, Any]) -> Iterable[str]:
    """Yield the params besides the arguments, and one line for the client's metadata."""
    parts = client_meta.split_params(
        msgspec.json.encode(call["extra_params"]) if call["extra_params"] else b""
    )
    return filter(None, (parts.shown.decode(), parts.line))


def print_state(call: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the state of a call after a review."""
    if as_json:
        print_json(call)
        return
    approvals = len({review["approver"] for review in call["reviews"] if review["answer"] == "approve"})
    progress = f" ({approvals} of {call['needed']})" if call["state"] == "pending" else ""
    open_console().print(
        Text(escape(f"{call['id']} {call['server']}/{call['tool']}: {_state(call)}{progress}"))
    )


def print_event(event: AuditEvent, *, as_json: bool) -> None:
    """Print one event of the audit trail."""
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(event)) + "\n")
        sys.stdout.flush()  # so that a program that follows the log through a pipe gets each event at once
        return
    detail = " ".join(
        f"{name}={value}"
        for name, value in event.detail.items()
        if name in ("rule", "why", "reason", "note", "via", "failed")
    )
    target = f"{event.server}/{event.tool}" if event.tool else event.server
    head = f"{event.seq:>6} {format_rfc3339(event.at)} {event.kind:<18} {event.actor:<12}"
    open_console().print(Text(escape(f"{head} {target} {event.call or ''} {detail}".rstrip())))


def _state(call: Mapping[str, Any]) -> str:
    """Return the state of a call, with a note if its server reported a failure."""
    outcome = call.get("outcome")
    return (
        f"{call['state']} (failed at the server)" if outcome and outcome["is_error"] else str(call["state"])
    )


def _time_left(expires_at: str) -> str:
    """Return the time until *expires_at*, in seconds for the last two minutes."""
    seconds = max(0, round(datetime.fromisoformat(expires_at).timestamp() - time.time()))
    return format_duration(seconds if seconds < 2 * 60 else seconds // 60 * 60)


def escape(text: str) -> str:
    """Return *text* on one line with control characters escaped, so that a name cannot forge output."""
    return safetext.escape_hidden(text).replace("\n", r"\u{000A}")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one line per row. On a terminal the last column is cut at the width; names are never cut."""
    out = open_console()
    table = [
        [Text(name, style="bold") for name in header],
        *([_cell(value) for value in row] for row in rows),
    ]
    widths = [max(cell.cell_len for cell in column) for column in zip(*table, strict=True)]
    room = max(0, out.width - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)) if out.is_terminal else None
    for *cells, last in table:
        for cell, width in zip(cells, widths, strict=False):
            cell.pad_right(width - cell.cell_len)
        if room is not None:
            last.truncate(room, overflow="ellipsis")
        line = Text(GAP).join([*cells, last])
        line.rstrip()
        out.print(line)


def _cell(value: object) -> Text:
    return Text(escape(str(value)), style=_COLOURS.get(str(value), ""))
