"""The command line: thin; each command loads the config, asks somebody else, and prints."""

import asyncio
import json
import logging
import os
import secrets
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from gateway import printing

app = typer.Typer(
    name="holdpoint",
    help="Risky MCP tool calls wait for a person, and run exactly as approved, once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
audit = typer.Typer(help="Check and export the audit trail.", no_args_is_help=True)
token = typer.Typer(help="Make tokens for agents and approvers.", no_args_is_help=True)
app.add_typer(audit, name="audit")
app.add_typer(token, name="token")

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="The config file.", envvar="HOLDPOINT_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT = Path("holdpoint.yaml")


class Failure(Exception):  # noqa: N818  (it is the user's sentence, not a programmer's error)
    """One plain sentence for the user; the command ends with exit code 1."""


@app.command()
def run(config: ConfigFile = DEFAULT) -> None:
    """Serve agents, the inbox and Slack. SIGTERM: take no more calls, let running ones finish, keep held ones."""
    from gateway import serving

    _log_to_stderr()
    _go(serving.run(config))


@app.command()
def stdio(server: str, config: ConfigFile = DEFAULT) -> None:
    """Speak MCP on stdin and stdout, for clients that only launch commands."""
    from gateway import serving

    _log_to_stderr()
    _go(serving.stdio(server, config))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="The agents' port; the inbox uses the next one.")] = 8808,
) -> None:
    """Run everything inside, with no config: a sample server, and an agent whose call is already waiting."""
    from gateway import demonstration

    _log_to_stderr(logging.WARNING)
    _go(demonstration.run(port))


@app.command()
def check(config: ConfigFile = DEFAULT) -> None:
    """Show every problem of the config at once, each with its path and line."""
    loaded = _load(config)
    servers = ", ".join(loaded.servers)
    typer.echo(f"{config} is good: servers {servers}.")


@app.command()
def tools(server: Annotated[str, typer.Argument()] = "", config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """Ask the servers for their tools: category, risk class, severity, action, and why."""
    from gateway import inspecting

    rows = _go(inspecting.tools(_load(config), server))
    printing.tools(rows, as_json=as_json)
    if any(row.problem for row in rows):
        raise typer.Exit(1)


@app.command()
def explain(
    server: str,
    tool: str,
    args: Annotated[str, typer.Option("--args", help="The call's arguments, a JSON object.")] = "{}",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Say what the policy does with a call: the verdict, each rule that matched, the evidence."""
    from gateway import inspecting

    printing.explanation(_go(inspecting.explain(_load(config), server, tool, args)), as_json=as_json)


@app.command()
def pending(config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """List the calls that wait for a person."""
    printing.calls(_api(config, lambda api: api.calls("pending")), as_json=as_json)


@app.command()
def show(call: str, config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """Show one call, all of it."""
    printing.call(_api(config, lambda api: api.call(call)), as_json=as_json)


@app.command()
def approve(call: str, reason: Annotated[str, typer.Option()] = "", config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """Approve a call, as the approver whose token is in HOLDPOINT_TOKEN."""
    printing.decided(_api(config, lambda api: api.decide(call, "approve", reason)), as_json=as_json)


@app.command()
def deny(call: str, reason: Annotated[str, typer.Option(help="The agent reads it.")], config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """Deny a call and tell the agent why."""
    printing.decided(_api(config, lambda api: api.decide(call, "deny", reason)), as_json=as_json)


@app.command()
def watch(config: ConfigFile = DEFAULT) -> None:
    """Show calls as they come to wait, until interrupted."""
    _api(config, lambda api: api.watch(printing.waiting))


@app.command()
def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come.")] = False,
    tool: Annotated[str, typer.Option()] = "",
    agent: Annotated[str, typer.Option()] = "",
    since: Annotated[str, typer.Option(help="Only the last while: 30m, 1h, 7d.")] = "",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Read the audit trail."""
    from gateway import trail

    store = _load(config).store
    for event in trail.events(store, tool=tool, agent=agent, since=_since(since), follow=follow):
        printing.event(event, as_json=as_json)


@audit.command("verify")
def verify(file: Annotated[Path | None, typer.Argument()] = None, config: ConfigFile = DEFAULT) -> None:
    """Check the hash chain; exit 1 and the first bad sequence number when it is broken."""
    from gateway import trail

    where = file or trail.database(_load(config).store)
    broken, count = trail.verify(where)
    if broken is not None:
        raise Failure(f"{where}: event {broken.seq} is not what was written: {broken.why}.")
    typer.echo(f"{where}: {count} events, the chain is whole.")


@audit.command("export")
def export(config: ConfigFile = DEFAULT) -> None:
    """Write the audit trail to stdout, one JSON object per line."""
    from gateway import trail

    for line in trail.export(_load(config).store):
        typer.echo(line)


@token.command("agent")
def token_agent(name: str) -> None:
    """Print a new token for an agent once, and the line for the config."""
    _token("agents", name)


@token.command("approver")
def token_approver(name: str) -> None:
    """Print a new token for an approver once, and the line for the config."""
    _token("approvers", name)
