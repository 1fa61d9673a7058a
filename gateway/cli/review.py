"""`okayed pending`, `show`, `approve`, `deny`, `give-up` and `watch`: review calls from a terminal."""

from pathlib import Path

from gateway.cli import output
from gateway.cli.api import call_api


def list_pending(config: Path, *, as_json: bool) -> None:
    """Print the pending calls."""
    output.print_calls(call_api(config, lambda api: api.calls("pending")), as_json=as_json)


def show(config: Path, call: str, *, exact: bool, as_json: bool) -> None:
    """Print one call; *exact* includes hidden values."""
    output.print_call(
        call_api(config, lambda api: api.reveal(call) if exact else api.call(call)), as_json=as_json
    )


def approve(config: Path, call: str, reason: str, *, as_json: bool) -> None:
    """Approve a call and print its new state."""
    output.print_state(call_api(config, lambda api: api.approve(call, reason)), as_json=as_json)


def deny(config: Path, call: str, reason: str, *, as_json: bool) -> None:
    """Deny a call and print its new state."""
    output.print_state(call_api(config, lambda api: api.deny(call, reason)), as_json=as_json)


def give_up(config: Path, call: str, reason: str, *, as_json: bool) -> None:
    """Stop waiting for the server's answer to a running call, and print its new state."""
    output.print_state(call_api(config, lambda api: api.give_up(call, reason)), as_json=as_json)


def watch(config: Path) -> None:
    """Print the pending calls again after each change, until interrupted."""
    call_api(config, lambda api: api.watch(lambda calls: output.print_calls(calls, as_json=False)))
