"""The command line: declares each command and its options; the module named after the command does the work.

Commands import that module when they run, so that `--help` and `okayed stdio` start fast.
"""

import logging
import sys
from typing import Annotated

import typer

from approvals.errors import ApprovalError
from gateway.cli.parameters import (
    DEFAULT,
    Accept,
    Arguments,
    Call,
    CheckStore,
    ConfigFile,
    Exact,
    FirstPolicy,
    Follow,
    Json,
    KnownCheckpoint,
    PolicyFile,
    Port,
    ResetClock,
    Restored,
    Server,
    TrailFile,
    Url,
)
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


@app.command()
def run(config: ConfigFile = DEFAULT, restored: Restored = False) -> None:
    """Serve agents, the inbox and Slack until SIGTERM; then finish running calls. Held calls are kept."""
    from gateway.cli import run as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.INFO)
    run_async(command.run(config, restored=restored))


@app.command()
def stdio(server: Server, config: ConfigFile = DEFAULT, url: Url = "") -> None:
    """Speak MCP on stdin and stdout, for clients that launch commands; OKAYED_AGENT_TOKEN is the agent's token."""
    from gateway.cli import stdio as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(server, config, url))


@app.command()
def demo(port: Port = 8808) -> None:
    """Try Okayed without a config: starts a sample server and an agent whose call is waiting."""
    from gateway.cli import demo as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(port))


@app.command()
def check(config: ConfigFile = DEFAULT, store: CheckStore = False, reset_clock: ResetClock = False) -> None:
    """Validate the config; prints every problem with its path and line."""
    from gateway.cli import check as command

    command.check(config, store=store, reset=reset_clock)


@app.command("import")
def import_policy(file: PolicyFile) -> None:
    """Translate a PolicyLayer or Intercept policy to YAML on stdout; exits 3 if parts of it have no equivalent."""
    from gateway.cli import import_policy as command

    command.import_policy(file)


@app.command()
def tools(
    server: Annotated[str, typer.Argument(help="The name of a server; default: all.")] = "",
    policy: FirstPolicy = False,
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
    accept: Accept = False,
) -> None:
    """List the servers' tools with category, risk, severity, action and reason."""
    from gateway.cli import tools as command

    if accept:
        command.accept_definitions(config, server)
    else:
        command.print_tools(config, server, policy=policy, as_json=as_json)


@app.command()
def explain(
    server: Server,
    tool: Annotated[str, typer.Argument(help="The name of the tool.")],
    args: Arguments = "{}",
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
def show(call: Call, exact: Exact = False, config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
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
    """List the calls that wait for approval, and list them again after each change."""
    from gateway.cli import review

    review.watch(config)


@app.command()
def log(
    follow: Follow = False,
    tool: Annotated[str, typer.Option(help="Only events of this tool.")] = "",
    agent: Annotated[str, typer.Option(help="Only events of this agent.")] = "",
    since: Annotated[str, typer.Option(help="Only recent events: 30m, 1h, 7d.")] = "",
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Print the audit trail."""
    from gateway.cli import audit as command

    command.print_log(config, tool=tool, agent=agent, since=since, follow=follow, as_json=as_json)


@audit.command("verify")
def audit_verify(
    file: TrailFile = None, checkpoint: KnownCheckpoint = "", config: ConfigFile = DEFAULT
) -> None:
    """Verify the hash chain; exits 1 with the first bad sequence number if it is broken."""
    from gateway.cli import audit as command

    command.verify(config, file, checkpoint)


@audit.command("export")
def audit_export(config: ConfigFile = DEFAULT) -> None:
    """Write the audit trail to stdout, one JSON object per line."""
    from gateway.cli import audit as command

    command.export(config)


@token.command("agent")
def token_agent(name: Annotated[str, typer.Argument(help="The name of the agent.")]) -> None:
    """Make a token for an agent; prints it, once, and its line for the config."""
    from gateway.cli.token import print_token

    print_token("agents", name)


@token.command("approver")
def token_approver(name: Annotated[str, typer.Argument(help="The name of the approver.")]) -> None:
    """Make a token for an approver; prints it, once, and its line for the config."""
    from gateway.cli.token import print_token

    print_token("approvers", name)


def _log_to_stderr(level: int) -> None:
    from gateway.cli.logs import configure_logging

    configure_logging(sys.stderr, level)


def main() -> None:
    """Run a command; prints an error that the user can fix on stderr, without a traceback, and exits 1."""
    try:
        app()
    except (UserError, ApprovalError, GatewayError, OSError) as error:
        sentence = error.strerror if isinstance(error, OSError) and error.filename is None else None
        sys.stderr.write(f"{sentence or error}\n")
        sys.exit(1)
