"""The real IAM server, served over Streamable HTTP instead of stdio. Prints its port."""

import socket
import sys

import uvicorn
from awslabs.iam_mcp_server.context import Context
from awslabs.iam_mcp_server.server import mcp

if __name__ == "__main__":
    Context.set_readonly(False)
    Context.set_require_confirmation(False)
    listener = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    uvicorn.Server(uvicorn.Config(mcp.streamable_http_app(), log_level="warning")).run(sockets=[listener])
