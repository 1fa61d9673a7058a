"""Runs FastMCP's proxy in its fastest mode, stateless with plain JSON responses, for comparison.

`.venv-fastmcp/bin/python fastmcp_proxy.py TARGET PORT`. It has no policy and never holds a call; it shows the cost
of an SDK-based proxy.
"""

import sys

from fastmcp.server import create_proxy

if __name__ == "__main__":
    create_proxy(sys.argv[1]).run(
        transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp",
        show_banner=False, log_level="error", stateless_http=True, json_response=True,
    )  # fmt: skip
