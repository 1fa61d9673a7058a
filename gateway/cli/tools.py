"""`okayed tools` and `okayed explain`: print the servers' tools, and the verdict for a call."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import typer

from gateway.app.config import load_config
from gateway.app.inspection import explain_call, list_tools
from gateway.cli import output
from gateway.cli.api import ApiClient, ask
from gateway.cli.event_loop import run_async


def print_tools(path: Path, server: str, *, policy: bool, as_json: bool) -> None:
    """Print the tools of one server or of all, or a first policy for them; exits 1 if a server did not answer."""
    rows = run_async(list_tools(load_config(path, os.environ), server))
    if policy:
        output.print_policy(rows)
    else:
        output.print_tools(rows, as_json=as_json)
    if any(row.problem for row in rows):
        raise typer.Exit(1)


def accept_definitions(path: Path, server: str) -> None:
    """Accept the current definitions of the tools of one server or of all, as an approver."""
    for name in [server] if server else load_config(path, os.environ).servers:
        output.print_accepted(name, ask(path, _acceptance(name)))


def _acceptance(server: str) -> Callable[[ApiClient], Awaitable[list[str]]]:
    return lambda api: api.accept(server, "")


def explain(path: Path, server: str, tool: str, arguments: str, *, as_json: bool) -> None:
    """Print the verdict for one call, and the reasons for it."""
    explanation = run_async(explain_call(load_config(path, os.environ), server, tool, arguments))
    output.print_explanation(explanation, as_json=as_json)
