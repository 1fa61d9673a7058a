"""The command line: declares each command and its options; the module named after the command does the work.

Commands import that module when they run, so that `--help` and `okayed stdio` start fast.
"""

import logging
import sys
from pathlib import Path

import click

from approvals.errors import ApprovalError
from gateway.cli import parameters
from gateway.errors import GatewayError, UserError

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class _Commands(click.Group):
    """Lists its commands in the order in which they are declared."""

    def list_commands(self, _context: click.Context) -> list[str]:
        """Return the names."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings=HELP)
def app() -> None:
    """Hold risky MCP tool calls until a person approves them, and run each exactly as approved, once."""


@app.group()
def audit() -> None:
    """Verify and export the audit trail."""


@app.group()
def token() -> None:
    """Make tokens for agents and approvers."""


@app.command()
@parameters.config_file
@parameters.restored
def run(config: Path, restored: bool) -> None:
    """Serve agents, the inbox and Slack until SIGTERM; then finish running calls. Held calls are kept."""
    from gateway.cli import run as command
    from gateway.cli.event_loop import find_fast_loop, run_async

    _log_to_stderr(logging.INFO)
    run_async(command.run(config, restored=restored), find_fast_loop())


@app.command()
@click.argument("server")
@parameters.config_file
@parameters.url
def stdio(server: str, config: Path, url: str) -> None:
    """Speak MCP on stdin and stdout, for clients that launch commands; OKAYED_AGENT_TOKEN is the agent's token."""
    from gateway.cli import stdio as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(server, config, url))


@app.command()
@parameters.port
def demo(port: int) -> None:
    """Try Okayed without a config: starts a sample server and an agent whose call is waiting."""
    from gateway.cli import demo as command
    from gateway.cli.event_loop import run_async

    _log_to_stderr(logging.WARNING)
    run_async(command.run(port))


@app.command()
@parameters.config_file
@parameters.check_store
@parameters.reset_clock
def check(config: Path, store: bool, reset_clock: bool) -> None:
    """Validate the config; prints every problem with its path and line."""
    from gateway.cli import check as command

    command.check(config, store=store, reset=reset_clock)


@app.command("import")
@click.argument("file", type=click.Path(path_type=Path))
def import_policy(file: Path) -> None:
    """Translate a PolicyLayer or Intercept policy to YAML on stdout; exits 3 if parts of it have no equivalent."""
    from gateway.cli import import_policy as command

    command.import_policy(file)


@app.command()
@click.argument("server", default="")
@parameters.first_policy
@parameters.config_file
@parameters.as_json
@parameters.accept
def tools(server: str, policy: bool, config: Path, as_json: bool, accept: bool) -> None:
    """List the tools of SERVER, or of all servers, with category, risk, severity, action and reason."""
    from gateway.cli import tools as command

    if accept:
        command.accept_definitions(config, server)
    else:
        command.print_tools(config, server, policy=policy, as_json=as_json)


@app.command()
@click.argument("server")
@click.argument("tool")
@parameters.arguments
@parameters.config_file
@parameters.as_json
def explain(server: str, tool: str, args: str, config: Path, as_json: bool) -> None:
    """Explain the verdict for a call: each rule that matched, and the evidence for the classification."""
    from gateway.cli import tools as command

    command.explain(config, server, tool, args, as_json=as_json)


@app.command()
@parameters.config_file
@parameters.as_json
def pending(config: Path, as_json: bool) -> None:
    """List the calls that wait for approval."""
    from gateway.cli import review

    review.list_pending(config, as_json=as_json)


@app.command()
@click.argument("call")
@parameters.exact
@parameters.config_file
@parameters.as_json
def show(call: str, exact: bool, config: Path, as_json: bool) -> None:
    """Show a call with all its arguments; values that look like secrets are hidden."""
    from gateway.cli import review

    review.show(config, call, exact=exact, as_json=as_json)


@app.command()
@click.argument("call")
@click.option("--reason", default="", help="A note that is kept with the call.")
@parameters.config_file
@parameters.as_json
def approve(call: str, reason: str, config: Path, as_json: bool) -> None:
    """Approve a call, as the approver whose token is in OKAYED_TOKEN."""
    from gateway.cli import review

    review.approve(config, call, reason, as_json=as_json)


@app.command()
@click.argument("call")
@click.option("--reason", required=True, help="The reason, which the agent reads.")
@parameters.config_file
@parameters.as_json
def deny(call: str, reason: str, config: Path, as_json: bool) -> None:
    """Deny a call and tell the agent why."""
    from gateway.cli import review

    review.deny(config, call, reason, as_json=as_json)


@app.command("give-up")
@click.argument("call")
@click.option("--reason", required=True, help="The reason, which is kept with the call.")
@parameters.config_file
@parameters.as_json
def give_up(call: str, reason: str, config: Path, as_json: bool) -> None:
    """Stop waiting for the server's answer to a running call; the call is then in doubt."""
    from gateway.cli import review

    review.give_up(config, call, reason, as_json=as_json)


@app.command()
@parameters.config_file
def watch(config: Path) -> None:
    """List the calls that wait for approval, and list them again after each change."""
    from gateway.cli import review

    review.watch(config)


@app.command()
@parameters.follow
@click.option("--tool", default="", help="Only events of this tool.")
@click.option("--agent", default="", help="Only events of this agent.")
@click.option("--since", default="", help="Only recent events: 30m, 1h, 7d.")
@parameters.config_file
@parameters.as_json
def log(follow: bool, tool: str, agent: str, since: str, config: Path, as_json: bool) -> None:
    """Print the audit trail."""
    from gateway.cli import audit as command

    command.print_log(config, tool=tool, agent=agent, since=since, follow=follow, as_json=as_json)


@audit.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@parameters.known_checkpoint
@parameters.config_file
def audit_verify(file: Path | None, checkpoint: str, config: Path) -> None:
    """Verify the hash chain; exits 1 with the first bad sequence number if it is broken."""
    from gateway.cli import audit as command

    command.verify(config, file, checkpoint)


@audit.command("export")
@parameters.config_file
def audit_export(config: Path) -> None:
    """Write the audit trail to stdout, one JSON object per line."""
    from gateway.cli import audit as command

    command.export(config)


@token.command("agent")
@click.argument("name")
def token_agent(name: str) -> None:
    """Make a token for an agent; prints it, once, and its line for the config."""
    from gateway.cli.token import print_token

    print_token("agents", name)


@token.command("approver")
@click.argument("name")
def token_approver(name: str) -> None:
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
