"""The command line: declares each command and its options; the module named after the command does the work.

Commands import that module when they run, so that `--help` and `okayed stdio` start fast.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from approvals.errors import ApprovalError
from gateway.errors import GatewayError, UserError

app = typer.Typer(
    help="Holds risky MCP tool calls until a person approves them, and runs each exactly as approved, once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
audit = typer.Typer(help="Verify and export the audit trail.", no_args_is_help=True)
token = typer.Typer(help="Make tokens for agents and approvers.", no_args_is_help=True)
app.add_typer(audit, name="audit")
app.add_typer(token, name="token")

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="The config file.", envvar="OKAYED_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Call = Annotated[str, typer.Argument(help="The ID of the call.")]
DEFAULT = Path("okayed.yaml")


@app.command()
def run(
    config: ConfigFile = DEFAULT,
    restored: Annotated[
        bool, typer.Option("--restored", help="The store is a restored copy: void the calls that wait in it.")
    ] = False,
) -> None:
    """Serve agents, the inbox and Slack until SIGTERM; running calls may then finish, and held calls are kept."""
    from gateway.cli import run as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.INFO)
    run_async(command.run(config, restored=restored))


@app.command()
def stdio(
    server: Annotated[str, typer.Argument(help="The name of the server.")],
    config: ConfigFile = DEFAULT,
    url: Annotated[
        str, typer.Option(help="The gateway to join, http(s)://host:port or unix:/path; needs no config.")
    ] = "",
) -> None:
    """Speak MCP on stdin and stdout, for clients that launch commands."""
    from gateway.cli import stdio as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(server, config, url))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="The agents' port; the inbox uses the next one.")] = 8808,
) -> None:
    """Try Okayed without a config: starts a sample server, and an agent whose call is waiting."""
    from gateway.cli import demo as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(port))


@app.command()
def check(
    config: ConfigFile = DEFAULT,
    reset_clock: Annotated[
        bool,
        typer.Option(
            "--reset-clock", help="After the clock was ahead: use its time again, and void waiting calls."
        ),
    ] = False,
) -> None:
    """Validate the config; prints every problem with its path and line."""
    from gateway.cli import check as command

    command.check(config, reset=reset_clock)


@app.command("import")
def import_policy(file: Annotated[Path, typer.Argument(help="A PolicyLayer or Intercept policy.")]) -> None:
    """Translate a PolicyLayer or Intercept policy to YAML on stdout; exits 3 if parts of it have no equal."""
    from gateway.cli import import_policy as command

    command.import_policy(file)


@app.command()
def tools(
    server: Annotated[str, typer.Argument(help="The name of a server; default: all.")] = "",
    policy: Annotated[
        bool, typer.Option("--policy", help="Print a first policy for these tools, as YAML.")
    ] = False,
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept changed definitions, as an approver.")
    ] = False,
) -> None:
    """List the servers' tools with category, risk, severity, action and reason."""
    from gateway.cli import tools as command

    if accept:
        command.accept_definitions(config, server)
    else:
        command.print_tools(config, server, policy=policy, as_json=as_json)


@app.command()
def explain(
    server: Annotated[str, typer.Argument(help="The name of the server.")],
    tool: Annotated[str, typer.Argument(help="The name of the tool.")],
    args: Annotated[str, typer.Option("--args", help="The arguments of the call, a JSON object.")] = "{}",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Explain the verdict for a call: each rule that matched, and the evidence for the classification."""
    from gateway.cli import tools as command

    command.explain(config, server, tool, args, as_json=as_json)


@app.command()
def pending(config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """List the calls that wait for approval."""
    from gateway.cli import review

    review.list_pending(config, as_json=as_json)


@app.command()
def show(
    call: Call,
    exact: Annotated[
        bool, typer.Option("--exact", help="Include hidden values; the audit trail records it.")
    ] = False,
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Show a call with all its arguments; values that look like secrets are hidden."""
    from gateway.cli import review

    review.show(config, call, exact=exact, as_json=as_json)


@app.command()
def approve(
    call: Call,
    reason: Annotated[str, typer.Option(help="A note that is kept with the call.")] = "",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Approve a call, as the approver whose token is in OKAYED_TOKEN."""
    from gateway.cli import review

    review.approve(config, call, reason, as_json=as_json)


@app.command()
def deny(
    call: Call,
    reason: Annotated[str, typer.Option(help="The reason, which the agent reads.")],
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Deny a call and tell the agent why."""
    from gateway.cli import review

    review.deny(config, call, reason, as_json=as_json)


@app.command("give-up")
def give_up(
    call: Call,
    reason: Annotated[str, typer.Option(help="The reason, which is kept with the call.")],
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Stop waiting for the server's answer to a running call; the call is then in doubt."""
    from gateway.cli import review

    review.give_up(config, call, reason, as_json=as_json)


@app.command()
def watch(config: ConfigFile = DEFAULT) -> None:
    """List the calls that wait for approval, again after each change, until interrupted."""
    from gateway.cli import review

    review.watch(config)


@app.command()
def log(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events.")] = False,
    tool: Annotated[str, typer.Option(help="Only events of this tool.")] = "",
    agent: Annotated[str, typer.Option(help="Only events of this agent.")] = "",
    since: Annotated[str, typer.Option(help="Only recent events: 30m, 1h, 7d.")] = "",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Print the audit trail."""
    from gateway.cli import audit as command
    from gateway.config.options import parse_duration

    try:
        start = time.time() - parse_duration(since) if since else 0.0
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    command.print_log(config, tool=tool, agent=agent, since=start, follow=follow, as_json=as_json)


@audit.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="An exported trail; default: the trail of the store.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="A checkpoint printed by an earlier verify, to detect a truncated trail.")
    ] = "",
    config: ConfigFile = DEFAULT,
) -> None:
    """Verify the hash chain; exits 1 with the first bad sequence number if it is broken."""
    from approvals.audit import Checkpoint
    from gateway.cli import audit as command

    try:
        known = Checkpoint.parse(checkpoint) if checkpoint else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--checkpoint") from error
    command.verify(config, file, known)


@audit.command("export")
def audit_export(config: ConfigFile = DEFAULT) -> None:
    """Write the audit trail to stdout, one JSON object per line."""
    from gateway.cli import audit as command

    command.export(config)


@token.command("agent")
def token_agent(name: Annotated[str, typer.Argument(help="The name of the agent.")]) -> None:
    """Print a new token for an agent once, and its line for the config."""
    from gateway.cli.token import print_token

    print_token("agents", name)


@token.command("approver")
def token_approver(name: Annotated[str, typer.Argument(help="The name of the approver.")]) -> None:
    """Print a new token for an approver once, and its line for the config."""
    from gateway.cli.token import print_token

    print_token("approvers", name)


def _log_to_stderr(level: int) -> None:
    from gateway.cli.logs import configure_logging

    configure_logging(sys.stderr, level)


def main() -> None:
    """Run a command; prints an error that the user can fix as one sentence on stderr and exits 1."""
    try:
        app()
    except (UserError, ApprovalError, GatewayError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
