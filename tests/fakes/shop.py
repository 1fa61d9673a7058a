"""The tools of the demo's shop, without the SDK: importing the SDK takes longer than starting the gateway."""

import json
import sys

ORDERS = {"1001": "Ada Lovelace, shipped", "1002": "Grace Hopper, paid", "1003": "Alan Turing, paid"}


def list_orders(status: str = "") -> str:
    """List the shop's orders, all or those in one status."""
    return "\n".join(f"{number}: {order}" for number, order in ORDERS.items() if status in order)


def update_order(number: str, status: str) -> str:
    """Set the status of an order."""
    return f"order {number} is now {status}"


def refund_order(number: str, amount: float, reason: str = "") -> str:
    """Refund a customer's payment."""
    return f"refunded {amount:.2f} for order {number}: {reason}"


def run_report(query: str) -> str:
    """Run a report over the shop's database."""
    return f"3 rows for: {query}"


def delete_customer(name: str) -> str:
    """Delete a customer and all orders for good."""
    return f"{name} is gone"


TOOLS = {
    tool.__name__: tool for tool in (list_orders, update_order, refund_order, run_report, delete_customer)
}
TYPES = {str: "string", float: "number"}


def definition(tool) -> dict:
    types = {name: kind for name, kind in tool.__annotations__.items() if name != "return"}
    required = list(types)[: len(types) - len(tool.__defaults__ or ())]
    properties = {name: {"type": TYPES[kind]} for name, kind in types.items()}
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": tool.__name__, "description": tool.__doc__, "inputSchema": schema}


NOT_CACHED = {"ttlMs": 0, "cacheScope": "private"}


def initialize(params: dict) -> dict:
    about = {"name": "shop", "version": "1"}
    return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": about}


def discover(_: dict) -> dict:
    return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **NOT_CACHED}


def call(params: dict) -> dict:
    text = TOOLS[params["name"]](**params["arguments"])
    return {"content": [{"type": "text", "text": text}], "isError": False}


METHODS = {
    "initialize": initialize,
    "server/discover": discover,
    "ping": lambda _: {},
    "tools/list": lambda _: {"tools": [definition(tool) for tool in TOOLS.values()], **NOT_CACHED},
    "tools/call": call,
}


def answer(request: dict) -> dict:
    if (method := METHODS.get(request["method"])) is None:
        return {"error": {"code": -32601, "message": "Method not found"}}
    return {"result": {"resultType": "complete", **method(request.get("params", {}))}}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer(request)}), flush=True)
