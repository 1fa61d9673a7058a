"""A peer to be measured beside the gateway: FastMCP's proxy at its fastest, without sessions and with plain JSON answers.

`.venv-fastmcp/bin/python peer.py TARGET PORT`. It judges nothing and holds nothing; it shows what a proxy made of an SDK costs.
"""

import sys

from fastmcp.server import create_proxy

if __name__ == "__main__":
    create_proxy(sys.argv[1]).run(
        transport="http", host="127.0.0.1", port=int(sys.argv[2]), path="/mcp",
        show_banner=False, log_level="error", stateless_http=True, json_response=True,
    )  # fmt: skip
