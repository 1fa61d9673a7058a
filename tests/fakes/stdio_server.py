"""A stdio MCP server that misbehaves on request, written by hand so that it can do what no SDK would."""

import json
import os
import sys

MODERN = "--modern" in sys.argv
#: The reaction of a handshake server to another first request: --strict exits, as Rust servers may; --silent does not answer.
FIRST = next((argument for argument in sys.argv if argument in {"--strict", "--silent"}), None)


def send(**frame) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **frame}) + "\n")
    sys.stdout.flush()


def say(request, text: str) -> None:
    send(id=request["id"], result={"content": [{"type": "text", "text": text}]})


def echo(request, params):
    say(request, json.dumps(params))


def crash(request, params):
    os._exit(3)


def noise(request, params):
    sys.stdout.write("this is no JSON\n\n[1]\n")
    sys.stderr.write("a line for the log\n")
    sys.stderr.flush()
    say(request, "after the noise")


def progress(request, params):
    token = params["_meta"]["progressToken"]
    for step in (1, 2):
        send(method="notifications/progress", params={"progressToken": token, "progress": step})
    say(request, f"token {token}")


def ask(request, params):
    send(id="s1", method="roots/list")
    answer = json.loads(sys.stdin.readline())
    say(request, f"you said {answer['result']}")


def announce(request, params):
    say(request, "announced")
    send(method="notifications/tools/list_changed")


def environment(request, params):
    say(request, ",".join(sorted(os.environ)))


def wait(request, params):
    sys.stderr.write("waits for a line\n")
    sys.stderr.flush()
    line = json.loads(sys.stdin.readline())
    sys.stderr.write(f"told {line['method']} {line['params']['requestId'] == request['id']}\n")
    sys.stderr.flush()
    say(request, "too late")


def wrong_id(request, params):
    send(id=999_999, result={})
    say(request, "the right one")


def long_line(request, params):
    sys.stdout.write("x" * (17 << 20) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()


TOOLS = {
    tool.__name__: tool
    for tool in (echo, crash, noise, progress, ask, announce, environment, wait, wrong_id, long_line)
}

for line in sys.stdin:
    request = json.loads(line)
    method, params = request.get("method"), request.get("params", {})
    if FIRST and method != "initialize":
        if FIRST == "--strict":
            sys.exit(1)
        continue
    FIRST = None
    if method == "initialize":
        send(
            id=request["id"],
            result={
                "protocolVersion": params["protocolVersion"],
                "capabilities": {},
                "serverInfo": {"name": "c", "version": "1"},
            },
        )
    elif method == "server/discover" and MODERN:
        send(
            id=request["id"],
            result={"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {}},
        )
    elif method == "tools/list":
        send(
            id=request["id"],
            result={"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]},
        )
    elif method == "tools/call":
        TOOLS[params["name"]](request, params)
    elif method == "subscriptions/listen":
        mark = {"_meta": {"io.modelcontextprotocol/subscriptionId": request["id"]}}
        send(method="notifications/subscriptions/acknowledged", params=mark)
        send(id=request["id"], result={"resultType": "complete", **mark})
    elif "id" in request and method:
        send(id=request["id"], error={"code": -32601, "message": "Method not found"})
