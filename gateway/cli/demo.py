"""`okayed demo`: a gateway, a sample server and an agent in one process, with a call that waits for approval."""

import asyncio
import hashlib
import secrets
import signal
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from approvals.model import Approver
from approvals.web.one_time_codes import create_code
from gateway.app.config import parse_config
from gateway.app.gateway import Gateway, assemble
from gateway.app.serving import Endpoints, serve
from gateway.config.options import Config

APPROVER = "you"
#: The agent's calls: the first is allowed, the second waits.
CALLS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("list_orders", {"status": "paid"}),
    (
        "refund_order",
        {"number": "1003", "amount": 980.0, "reason": "The customer says that the parcel never arrived."},
    ),
)


def build_config(port: int, token_sha256: str) -> Config:
    """Return the demo's config."""
    text = f"""
listen: 127.0.0.1:{port}
store: "memory:"
servers:
  shop: {{command: [{sys.executable}, -W, ignore, -m, gateway.cli.sample_server]}}
approvers: [{{name: {APPROVER}, token_sha256: {token_sha256}}}]
policy:
  default: require_approval
  matrix:
    - {{category: [Read], action: allow, rate_limit: {{max: 60, window: 60}}}}
  tools:
    refund_order: {{action: require_approval, reason: Money leaves the shop.}}
    delete_customer: {{action: deny, reason: Deletions go through the ticket queue.}}
approvals: {{expire_after: 1h, hold_for: 1h}}
inbox: {{listen: "127.0.0.1:{port + 1 if port else 0}"}}
"""
    return parse_config(text, {}, lambda name: name)


async def run(port: int) -> None:
    """Serve the demo until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    secret = secrets.token_urlsafe(24)
    config = build_config(port, hashlib.sha256(secret.encode()).hexdigest())
    async with assemble(config) as gateway, serve(gateway) as endpoints, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(run_agent(f"{endpoints.agents}shop"))
        await _print_welcome(gateway, endpoints, secret)
        await stop.wait()
        agent.cancel()


async def _print_welcome(gateway: Gateway, endpoints: Endpoints, secret: str) -> None:
    code = await create_code(gateway.service, gateway.store, Approver(name=APPROVER))
    lines = [
        "",
        "Okayed is running, with a sample shop behind it.",
        "",
        f"  Open the inbox:   {endpoints.inbox}login/once/{code}",
        "  An agent wants to refund an order; approve or deny the call there.",
        "",
        f"  Point an agent at {endpoints.agents}shop",
        f"  From a terminal:  OKAYED_URL={endpoints.inbox.rstrip('/')} OKAYED_TOKEN={secret} okayed pending",
        "",
        "Press Ctrl-C to stop.",
        "",
    ]
    _print("\n".join(lines))


async def run_agent(url: str) -> None:
    """Make the calls one after the other with the MCP SDK's client, and print the results."""
    from mcp import Client

    async with Client(url) as client:
        for tool, arguments in CALLS:
            _print(f"agent: {tool} {msgspec.json.encode(arguments).decode()}")
            result = await client.call_tool(tool, dict(arguments))
            text = " ".join(block.text for block in result.content if block.type == "text")
            _print(f"agent: {tool} -> {text}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
