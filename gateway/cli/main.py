"""The command line: thin; each command loads the config, asks somebody else, and prints.

What a command needs is imported inside it: a sidecar is felt at its start, and `--help` should not load a server.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from approvals.errors import ApprovalError
from gateway.config.options import listen_address, parse_duration
from gateway.errors import GatewayError, UserError, first_error

if TYPE_CHECKING:
    from gateway.cli.review import ApiClient
    from gateway.config.options import Config

Answer = TypeVar("Answer")
app = typer.Typer(
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

ConfigFile = Annotated[Path, typer.Option("-c", "--config", help="The config file.", envvar="OKAYED_CONFIG")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
DEFAULT = Path("okayed.yaml")


@app.command()
def run(
    config: ConfigFile = DEFAULT,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored", help="The store was put back from a copy: void what waits in it, and go on with it."
        ),
    ] = False,
) -> None:
    """Serve agents, the inbox and Slack, until SIGTERM: then running calls may finish and held ones are kept."""
    from gateway.app import serving

    _log_to_stderr(logging.INFO)
    _go(serving.run(config, restored=restored))


@app.command()
def stdio(
    server: str,
    config: ConfigFile = DEFAULT,
    url: Annotated[
        str, typer.Option(help="Join the gateway there, http(s)://host:port or unix:/path; needs no config.")
    ] = "",
) -> None:
    """Speak MCP on stdin and stdout, for clients that only launch commands."""
    from gateway.cli import stdio as joining

    _log_to_stderr(logging.WARNING)
    _go(joining.run(server, config, url))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="The agents' port; the inbox gets the next one.")] = 8808,
) -> None:
    """Run everything inside, with no config: a sample server, and an agent's call that is waiting already."""
    from gateway.cli import demo as demonstration

    _log_to_stderr(logging.WARNING)
    _go(demonstration.run(port))


@app.command()
def check(
    config: ConfigFile = DEFAULT,
    reset_clock: Annotated[
        bool,
        typer.Option(
            "--reset-clock",
            help="After the clock was ahead by mistake: go by it again. Every call that waits is void.",
        ),
    ] = False,
) -> None:
    """Show every problem of the config at once, each with its path and line."""
    from gateway.app import file_limit

    loaded = _load(config)
    typer.echo(f"{config} is good. Servers: {', '.join(loaded.servers)}.")
    for warning in file_limit.limit_warnings():
        typer.echo(f"warning: {warning}", err=True)
    if reset_clock:
        from gateway.cli import check as resetting

        typer.echo(_go(resetting.reset_clock(loaded)))


@app.command("import")
def import_policy(file: Path) -> None:
    """Turn a policy of PolicyLayer or Intercept into ours, on stdout; exit 3 when something had no equal."""
    from gateway.policy.policylayer.translation import translate

    try:
        made = translate(file.read_text(encoding="utf-8"), file.name)
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is not UTF-8 text.") from error
    except OSError as error:
        raise UserError(
            f"{file} cannot be read ({error.strerror}); give the file of a PolicyLayer or Intercept policy."
        ) from error
    typer.echo(made.yaml, nl=False)
    if made.notes:
        typer.echo(f"In {file.name} this had no equal:", err=True)
        for note in made.notes:
            typer.echo(f"  {note}", err=True)
        raise typer.Exit(3)


def _accepting(server: str) -> "Callable[[ApiClient], Awaitable[list[str]]]":
    return lambda api: api.accept(server, "")


@app.command()
def tools(
    server: Annotated[str, typer.Argument()] = "",
    policy: Annotated[bool, typer.Option("--policy", help="Print a policy to start from, as YAML.")] = False,
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept changed definitions, as an approver.")
    ] = False,
) -> None:
    """Ask the servers for their tools: category, risk class, severity, action, and why."""
    from gateway.cli import output
    from gateway.cli import tools as inspecting

    if accept:
        for name in [server] if server else _load(config).servers:
            output.accepted(name, _ask(config, _accepting(name)))
        return
    rows = _go(inspecting.list_tools(_load(config), server))
    if policy:
        output.policy(rows)
    else:
        output.tools(rows, as_json=as_json)
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
    from gateway.cli import output
    from gateway.cli import tools as inspecting

    output.explanation(_go(inspecting.explain_call(_load(config), server, tool, args)), as_json=as_json)


@app.command()
def pending(config: ConfigFile = DEFAULT, as_json: Json = False) -> None:
    """List the calls that wait for a person."""
    from gateway.cli import output

    output.calls(_ask(config, lambda api: api.calls("pending")), as_json=as_json)


@app.command()
def show(
    call: str,
    exact: Annotated[
        bool, typer.Option("--exact", help="Show hidden values too; the audit trail records it.")
    ] = False,
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Show one call with all of its arguments. Values that look like secrets are hidden."""
    from gateway.cli import output

    shown = _ask(config, lambda api: api.reveal(call) if exact else api.call(call))
    output.call(shown, as_json=as_json)


@app.command()
def approve(
    call: str, reason: Annotated[str, typer.Option()] = "", config: ConfigFile = DEFAULT, as_json: Json = False,
) -> None:  # fmt: skip
    """Approve a call, as the approver whose token is in OKAYED_TOKEN."""
    from gateway.cli import output

    output.decided(_ask(config, lambda api: api.approve(call, reason)), as_json=as_json)


@app.command()
def deny(
    call: str,
    reason: Annotated[str, typer.Option(help="Why; the agent reads it.")],
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Deny a call and tell the agent why."""
    from gateway.cli import output

    output.decided(_ask(config, lambda api: api.deny(call, reason)), as_json=as_json)


@app.command("give-up")
def give_up(
    call: str,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the call.")],
    config: ConfigFile = DEFAULT,
    as_json: Json = False,
) -> None:
    """Stop waiting for the server's answer to a running call; the call is then in doubt."""
    from gateway.cli import output

    output.decided(_ask(config, lambda api: api.give_up(call, reason)), as_json=as_json)


@app.command()
def watch(config: ConfigFile = DEFAULT) -> None:
    """Show the waiting calls, again after each change, until interrupted."""
    from gateway.cli import output

    _ask(config, lambda api: api.watch(output.waiting))


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
    from gateway.cli.audit import print_log

    try:
        start = time.time() - parse_duration(since) if since else 0.0
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from error
    print_log(_load(config), tool=tool, agent=agent, since=start, follow=follow, as_json=as_json)


@audit.command("verify")
def audit_verify(
    file: Annotated[
        Path | None, typer.Argument(help="An exported trail; without it, the trail of the store.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="A checkpoint that an earlier verify printed, to detect a truncated trail.")
    ] = "",
    config: ConfigFile = DEFAULT,
) -> None:
    """Verify the hash chain; if it is broken, exit 1 and print the first bad sequence number."""
    from approvals.audit import Checkpoint
    from gateway.cli.audit import verify

    try:
        known = Checkpoint.parse(checkpoint) if checkpoint else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--checkpoint") from error
    verify(None if file is not None and not config.exists() else _load(config), file, known)


@audit.command("export")
def audit_export(config: ConfigFile = DEFAULT) -> None:
    """Write the audit trail to stdout, one JSON object per line."""
    from gateway.cli.audit import export

    export(_load(config))


@token.command("agent")
def token_agent(name: str) -> None:
    """Print a new token for an agent once, and the line for the config."""
    _token("agents", name)


@token.command("approver")
def token_approver(name: str) -> None:
    """Print a new token for an approver once, and the line for the config."""
    _token("approvers", name)


def _token(section: str, name: str) -> None:
    made = f"okayed_{section.removesuffix('s')}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(made.encode()).hexdigest()
    typer.echo(made)
    typer.echo(f"It is shown this once. In the config, under {section}:", err=True)
    typer.echo(f"  - {{name: {name}, token_sha256: {digest}}}", err=True)


def _load(path: Path) -> "Config":
    from gateway.app.config import load_config

    return load_config(path, os.environ)


def _ask(path: Path, question: "Callable[[ApiClient], Awaitable[Answer]]") -> Answer:
    """Ask the running gateway that the config describes, or the one at OKAYED_URL."""
    from gateway.cli.review import connect
    from gateway.config.addresses import local_address

    url = os.environ.get("OKAYED_URL") or local_address(listen_address(_load(path).inbox.listen))

    async def asked() -> Answer:
        async with connect(url, os.environ.get("OKAYED_TOKEN", "")) as connection:
            return await question(connection)

    return _go(asked())


def _go(job: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a job in an event loop; of several faults that end it, the first is told."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(job)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BaseExceptionGroup as group:
        raise first_error(group) from group


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the faster event loop where it is installed (the extra `fast`)."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _log_to_stderr(level: int) -> None:
    from gateway.cli.logs import configure_logging

    configure_logging(sys.stderr, level)


def main() -> None:
    """Run a command; what the user can mend is one sentence on stderr and exit code 1."""
    try:
        app()
    except (UserError, ApprovalError, GatewayError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(1)
