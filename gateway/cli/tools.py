"""`okayed tools` and `okayed explain`: print the servers' tools, and the verdict for a call."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from approvals import safetext
from gateway.app.config import load_config
from gateway.app.inspection import CallExplanation, ToolRow, explain_call, list_tool_rows
from gateway.cli.api import ApiClient, call_api
from gateway.cli.event_loop import run_async
from gateway.cli.output import escape, open_console, print_json, print_table
from gateway.explain import report
from gateway.explain.first_policy import generate_policy
from gateway.policy.limits import Limit

#: The names of a limit's fields in JSON, where they differ.
LIMIT_NAMES: Mapping[str, str] = {"needs_approval": "ask", "argument": "of"}


def print_tools(path: Path, server: str, *, policy: bool, as_json: bool) -> None:
    """Print the tools of one server or of all, or a first policy for them; exits 1 if a server did not answer."""
    rows = run_async(list_tool_rows(load_config(path, os.environ), server))
    if policy:
        print_policy(rows)
    else:
        print_rows(rows, as_json=as_json)
    if any(row.problem for row in rows):
        raise click.exceptions.Exit(1)


def accept_definitions(path: Path, server: str) -> None:
    """Accept the current definitions of the tools of one server or of all, as an approver."""
    for name in [server] if server else load_config(path, os.environ).servers:
        print_accepted(name, call_api(path, _acceptance(name)))


def _acceptance(server: str) -> Callable[[ApiClient], Awaitable[list[str]]]:
    return lambda api: api.accept(server, "")


def explain(path: Path, server: str, tool: str, arguments: str, *, as_json: bool) -> None:
    """Print the verdict for one call, and the reasons for it."""
    explanation = run_async(explain_call(load_config(path, os.environ), server, tool, arguments))
    print_explanation(explanation, as_json=as_json)


def print_rows(rows: Sequence[ToolRow], *, as_json: bool) -> None:
    """Print a table of tools: category, risk class, severity, action, first reason."""
    if as_json:
        print_json([_tool_facts(row) for row in rows])
        return
    print_table(("server", "tool", "category", "risk", "severity", "action", "why"), map(_tool_cells, rows))


def _tool_cells(row: ToolRow) -> Sequence[str]:
    if row.tool is None or row.verdict is None:
        return row.server, "?", "", "", "", "", row.problem
    classification = row.tool.classification
    why = classification.evidence[0] if classification.evidence else ""
    return (
        row.server,
        row.tool.name,
        classification.category,
        classification.risk,
        classification.severity,
        row.verdict.action,
        why,
    )


def print_policy(rows: Sequence[ToolRow]) -> None:
    """Print a first policy for the tools, as YAML."""
    tools = [(row.server, row.tool) for row in rows if row.tool is not None]
    sys.stdout.write(generate_policy(tools, {row.server: row.problem for row in rows if row.problem}))


def _tool_facts(row: ToolRow) -> Mapping[str, Any]:
    if row.tool is None or row.verdict is None:
        return {"server": row.server, "problem": row.problem}
    classification = row.tool.classification
    judged = {"action": row.verdict.action, "rule": row.verdict.rule, "reason": row.verdict.reason}
    return {"server": row.server, "tool": row.tool.name, **asdict(classification), **judged}


def print_explanation(found: CallExplanation, *, as_json: bool) -> None:
    """Print the verdict for a call, each rule that matched, and the evidence."""
    if as_json:
        print_json(_explanation_facts(found))
        return
    open_console().print(Text("\n".join(map(safetext.escape_hidden, _explanation_lines(found)))))


def _explanation_facts(found: CallExplanation) -> Mapping[str, Any]:
    return {
        "server": found.server,
        "tool": found.tool.name,
        "listed": found.listed,
        "verdict": {**asdict(found.verdict), "limits": list(map(_limit_facts, found.verdict.limits))},
        "classification": asdict(found.tool.classification),
        "report": asdict(found.report),
    }


def _limit_facts(limit: Limit) -> Mapping[str, Any]:
    """Return a limit with the names that scripts read."""
    return {LIMIT_NAMES.get(name, name): value for name, value in asdict(limit).items()}


def _explanation_lines(found: CallExplanation) -> Iterator[str]:
    verdict, classified = found.verdict, found.tool.classification
    yield f"{found.server}/{escape(found.tool.name)}: {verdict.action} ({verdict.rule})"
    yield from (f"  {line}" for line in found.report.applies)
    yield "\nRules that matched:"
    for match in verdict.trace:
        note = f", {match.note}" if match.note else ""
        yield f"  {match.rule}: {match.action or 'adds limits only'}{note}"
    yield f"\nCategory {classified.category}, risk {classified.risk}, severity {classified.severity}.\n"
    yield from report.format_report(found.report)
    if not found.listed:
        yield "The server does not list this tool; it was classified by its name alone."


def print_accepted(server: str, names: Sequence[str]) -> None:
    """Print the tools whose definitions were accepted."""
    sys.stdout.write(
        f"{server}: {', '.join(map(escape, names)) if names else 'no definition has changed'}.\n"
    )
