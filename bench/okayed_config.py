"""The config of the measured gateway: agents with tokens, one approver, ten rules, a matrix, one server, SQLite."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from processes import ROOT, run_process

#: The approver's token.
TOKEN = "bench-token"
#: Ten rules by name, two of them with conditions. None matches the server's tools, so the matrix decides.
POLICY = {
    "default": "require_approval",
    "matrix": [
        {"category": ["Read"], "action": "allow"},
        {"category": ["Write"], "action": "require_approval"},
    ],
    "tools": {
        "delete_*": {"action": "deny", "reason": "Deletions go through the ticket queue"},
        "drop_*": {"action": "deny"},
        "put_user_policy": {"action": "require_approval", "approvals": 1},
        "create_charge": {"when": "args.amount > 50000", "action": "deny"},
        "refund_*": {"when": "args.amount > 100", "action": "deny"},
        "send_*": {"action": "require_approval"},
        "merge_*": {"action": "require_approval"},
        "bench/list_secrets": {"action": "deny"},
        "other/*": {"action": "deny"},
        "admin_*": {"action": "deny"},
    },
}


def agent_token(agent: int) -> str:
    return f"bench-agent-{agent}-0123456789abcdef0123456789abcdef"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_config(
    folder: Path, *, server: int, agents: int, inbox: int, count: int = 4, **options: object
) -> Path:
    """Write a config with the ports of the server and the listeners, *count* agents, and other *options*."""
    config = {
        "listen": f"127.0.0.1:{agents}",
        "inbox": {"listen": f"127.0.0.1:{inbox}"},
        "store": f"sqlite:///{folder}/bench.db",
        "servers": {"bench": {"url": f"http://127.0.0.1:{server}/mcp"}},
        "agents": [
            {"name": f"agent-{one}", "token_sha256": sha256(agent_token(one))} for one in range(count)
        ],
        "approvers": [{"name": "bench", "token_sha256": sha256(TOKEN)}],
        "policy": POLICY,
        **options,
    }
    file = folder / "okayed.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    file.chmod(0o600)
    return file


@contextmanager
def run_okayed(config: Path, tree: Path = ROOT, **options) -> Iterator[Popen[bytes]]:
    """Run `okayed run` of the checkout *tree* in the folder of the config."""
    command = [sys.executable, "-m", "gateway", "run", "-c", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve())}
    with run_process(command, env=environment, cwd=config.parent, **options) as process:
        yield process
