"""How the command line shows things: tables on a terminal, JSON for scripts, nothing that could steer a terminal."""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from approvals import client_meta, safetext
from approvals.model import AuditEvent
from gateway.app.inspection import CallExplanation, ToolRow
from gateway.explain import report
from gateway.explain.first_policy import generate_policy
from gateway.hold.messages import format_duration, format_rfc3339

#: What stands between two columns.
GAP = "  "
_COLOURS = {
    "deny": "red",
    "require_approval": "yellow",
    "allow": "green",
    "critical": "red",
    "high": "red",
    "medium": "yellow",
}


def console() -> Console:
    """Return the terminal on stdout; colours only there, and not with NO_COLOR."""
    return Console(highlight=False, soft_wrap=True)


def print_line(text: str) -> None:
    """Print plain text."""
    sys.stdout.write(f"{text}\n")


def print_json(value: Any) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), indent=2) + "\n")


def print_tools(rows: Sequence[ToolRow], *, as_json: bool) -> None:
    """Show tools: category, risk class, severity, action, and the first reason."""
    if as_json:
        print_json([_tool_facts(row) for row in rows])
        return
    _print_table(("server", "tool", "category", "risk", "severity", "action", "why"), map(_tool_cells, rows))


def _tool_cells(row: ToolRow) -> Sequence[str]:
    if row.tool is None or row.verdict is None:
        return row.server, "?", "", "", "", "", row.problem
    found = row.tool.classification
    why = found.evidence[0] if found.evidence else ""
    return row.server, row.tool.name, found.category, found.risk, found.severity, row.verdict.action, why


def print_policy(rows: Sequence[ToolRow]) -> None:
    """Print a policy to start from."""
    tools = [(row.server, row.tool) for row in rows if row.tool is not None]
    sys.stdout.write(generate_policy(tools, {row.server: row.problem for row in rows if row.problem}))


def _tool_facts(row: ToolRow) -> Mapping[str, Any]:
    if row.tool is None or row.verdict is None:
        return {"server": row.server, "problem": row.problem}
    found = row.tool.classification
    judged = {"action": row.verdict.action, "rule": row.verdict.rule, "reason": row.verdict.reason}
    return {"server": row.server, "tool": row.tool.name, **asdict(found), **judged}


def print_explanation(found: CallExplanation, *, as_json: bool) -> None:
    """Show the verdict for a call, each rule that matched, and the evidence."""
    verdict, classified = found.verdict, found.tool.classification
    if as_json:
        print_json(
            {
                "server": found.server,
                "tool": found.tool.name,
                "listed": found.listed,
                "verdict": asdict(verdict),
                "classification": asdict(classified),
                "told": asdict(found.report),
            }
        )
        return
    lines = [
        f"{found.server}/{_line(found.tool.name)}: {verdict.action} ({verdict.rule})",
        *(f"  {line}" for line in found.report.applies),
        "",
        "Rules that matched:",
        *(
            f"  {match.rule}: {match.action or 'adds limits only'}{f', {match.note}' if match.note else ''}"
            for match in verdict.trace
        ),
        "",
        f"Category {classified.category}, risk {classified.risk}, severity {classified.severity}.",
        "",
        *report.format_report(found.report),
    ]
    if not found.listed:
        lines.append("The server does not list this tool; it was classified by its name alone.")
    console().print(Text("\n".join(map(safetext.escape_hidden, lines))))


def print_accepted(server: str, names: Sequence[str]) -> None:
    """Say which tools' definitions were accepted."""
    sys.stdout.write(f"{server}: {', '.join(map(_line, names)) if names else 'nothing had changed'}.\n")


def print_calls(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Show held calls in a table."""
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("Nothing is waiting.")
        return
    _print_table(
        ("id", "server/tool", "agent", "category", "severity", "expires", "arguments"),
        map(_call_cells, found),
    )


def _call_cells(one: Mapping[str, Any]) -> Sequence[str]:
    where, left = f"{one['server']}/{one['tool']}", _left(one["expires_at"])
    short = safetext.one_line(one["arguments_text"], 60) if one["whole"] else "(large: okayed show ID)"
    return one["id"], where, one["agent"], one["category"], one["severity"], left, short


def print_call(one: Mapping[str, Any], *, as_json: bool) -> None:
    """Show one held call, all of it."""
    if as_json:
        print_json(one)
        return
    facts = (
        "id",
        "state",
        "server",
        "tool",
        "agent",
        "owner",
        "category",
        "risk",
        "severity",
        "rule",
        "reason",
        "expires_at",
        "digest",
    )
    shown = {**one, "state": _state(one)}
    lines = [f"{name:>10}  {shown[name] if shown[name] is not None else ''}" for name in facts]
    lines += ["", *(f"  {sentence}" for sentence in one["evidence"]), "", one["arguments_text"]]
    lines += [f"also sent: {along}" for along in _along(one)]
    if one["hidden"]:
        lines += ["", f"{one['hidden']} hidden. To see all of it: okayed show {one['id']} --exact"]
    lines += [
        f"{review['approver']}: {review['answer']} {review['reason']} (by {review['via']})"
        for review in one["reviews"]
    ]
    console().print(Text("\n".join(map(safetext.escape_hidden, lines))))


def _along(one: Mapping[str, Any]) -> Iterable[str]:
    """Yield what goes along with the arguments, and the line that stands for the client's bookkeeping."""
    along = client_meta.split_params(msgspec.json.encode(one["extra_params"]) if one["extra_params"] else b"")
    return filter(None, (along.shown.decode(), along.line))


def print_state(one: Mapping[str, Any], *, as_json: bool) -> None:
    """Say what became of a call after a review."""
    if as_json:
        print_json(one)
        return
    given = len({review["approver"] for review in one["reviews"] if review["answer"] == "approve"})
    more = f" ({given} of {one['needed']})" if one["state"] == "pending" else ""
    console().print(Text(_line(f"{one['id']} {one['server']}/{one['tool']}: {_state(one)}{more}")))


def print_event(one: AuditEvent, *, as_json: bool) -> None:
    """Show one line of the audit trail."""
    if as_json:
        sys.stdout.write(json.dumps(msgspec.to_builtins(one)) + "\n")
        sys.stdout.flush()  # who follows reads from a pipe, and wants each event as it comes
        return
    detail = " ".join(
        f"{name}={value}"
        for name, value in one.detail.items()
        if name in ("rule", "why", "reason", "note", "via", "failed")
    )
    what = f"{one.server}/{one.tool}" if one.tool else one.server
    line = f"{one.seq:>6} {format_rfc3339(one.at)} {one.kind:<18} {one.actor:<12} {what} {one.call or ''} {detail}"
    console().print(Text(_line(line.rstrip())))


def _state(one: Mapping[str, Any]) -> str:
    """Return the state of a call, and whether its server reported a failure."""
    outcome = one.get("outcome")
    return f"{one['state']} (failed at the server)" if outcome and outcome["is_error"] else str(one["state"])


def _left(expires_at: str) -> str:
    """Return how long it is until a time, as people say it; the last minutes in seconds."""
    seconds = max(0, round(datetime.fromisoformat(expires_at).timestamp() - time.time()))
    return format_duration(seconds if seconds < 2 * 60 else seconds // 60 * 60)


def _line(text: str) -> str:
    """Return *text* on one line, so that no name can look like a line of ours."""
    return safetext.escape_hidden(text).replace("\n", r"\u{000A}")


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one line a row. Names are never cut; on a terminal the last column ends where the line does."""
    out = console()
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
    return Text(_line(str(value)), style=_COLOURS.get(str(value), ""))
