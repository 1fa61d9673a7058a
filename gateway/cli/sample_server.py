"""The demo's MCP server: a small shop with tools that read, write, run, delete and pay, all in memory."""

from mcp.server import MCPServer

ORDERS = {
    "1001": {"customer": "Ada Lovelace", "total": 120.00, "status": "shipped"},
    "1002": {"customer": "Grace Hopper", "total": 64.50, "status": "paid"},
    "1003": {"customer": "Alan Turing", "total": 980.00, "status": "paid"},
}

server = MCPServer("Okayed's sample shop")


@server.tool()
def list_orders(status: str = "") -> str:
    """List the shop's orders, all or those in one status."""
    found = [f"{number}: {order}" for number, order in ORDERS.items() if status in ("", order["status"])]
    return "\n".join(found) or "no orders"


@server.tool()
def update_order(number: str, status: str) -> str:
    """Set the status of an order."""
    ORDERS[number]["status"] = status
    return f"order {number} is now {status}"


@server.tool()
def refund_order(number: str, amount: float, reason: str = "") -> str:
    """Refund a customer's payment."""
    return f"refunded {amount:.2f} to {ORDERS[number]['customer']} for order {number}: {reason or 'no reason given'}"


@server.tool()
def run_report(query: str) -> str:
    """Run a report over the shop's database."""
    return f"3 rows for: {query}"


@server.tool()
def delete_customer(name: str) -> str:
    """Delete a customer and all orders for good."""
    gone = [number for number, order in ORDERS.items() if order["customer"] == name]
    for number in gone:
        del ORDERS[number]
    return f"{name} is gone, with {len(gone)} orders"


if __name__ == "__main__":
    server.run("stdio")
