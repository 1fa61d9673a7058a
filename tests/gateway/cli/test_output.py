"""The output of commands on a terminal and in a pipe."""

import json
import time
from datetime import UTC, datetime

import pytest

from approvals.model import AuditEvent
from gateway.app import inspection
from gateway.app.config import parse_config
from gateway.cli import output, tools
from recording_server import RecordingServer

WAITING = {
    "id": "hold_01kajz5v8q4m7x2n9c6b3d0e1f", "server": "iam", "tool": "put_user_policy", "agent": "ci-bot", "category": "Write",
    "severity": "medium", "whole": True, "arguments_text": '{"user_name":"bob","policy_document":"a document that is much longer than a line"}',
}  # fmt: skip


def expiring(seconds: float) -> dict:
    at = datetime.fromtimestamp(time.time() + seconds, UTC)
    return {**WAITING, "expires_at": at.isoformat(timespec="seconds").replace("+00:00", "Z")}


@pytest.fixture
def plain(monkeypatch):
    """A terminal without colours, of a given width."""

    def of(columns: int):
        for name, value in {"COLUMNS": str(columns), "FORCE_COLOR": "1", "NO_COLOR": "1"}.items():
            monkeypatch.setenv(name, value)

    return of


LONG = {**WAITING, "server": "billing-and-subscriptions", "tool": "create_or_update_a_customers_subscription"}


@pytest.mark.parametrize("columns", ["80", "100", "200"])
def test_in_a_pipe_a_call_is_one_line_with_full_names(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    output.print_calls(
        [{**LONG, **expiring(890), "server": LONG["server"], "tool": LONG["tool"]}], as_json=False
    )
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["id", "server/tool", "agent", "category", "severity", "expires", "arguments"]
    assert line.startswith(f"{WAITING['id']}  {LONG['server']}/{LONG['tool']}  ci-bot  ")
    assert line.endswith("…")


def test_on_a_terminal_the_last_column_is_cut_at_the_width(capsys, plain):
    plain(110)
    output.print_calls([expiring(890)], as_json=False)
    _, line = capsys.readouterr().out.splitlines()
    assert len(line.replace("\x1b[1m", "").replace("\x1b[0m", "")) == 110
    assert line.endswith("…")


def test_on_a_narrow_terminal_no_name_is_cut(capsys, plain):
    plain(40)
    output.print_calls([expiring(890)], as_json=False)
    _, line = capsys.readouterr().out.splitlines()
    assert f"{WAITING['id']}  iam/put_user_policy  ci-bot  Write     medium    14 min" in line


@pytest.mark.parametrize(
    ("seconds", "shown"), [(890, "14 min"), (-5, "0 s"), (5 * 3600 + 30, "5 h"), (90 * 60 + 30, "90 min")]
)
def test_the_time_left_is_in_seconds_or_minutes(seconds, shown, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    output.print_calls([expiring(seconds)], as_json=False)
    assert f"  {shown}  " in capsys.readouterr().out


NAME = "get_x\nnotes/delete_note: allow\x1b[31m"
SHOWN = r"get_x\u{000A}notes/delete_note: allow\u{001B}[31m"


async def test_a_tool_name_cannot_forge_output_or_control_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    async with RecordingServer(tools=[{"name": NAME, "inputSchema": {"type": "object"}}]) as recorder:
        config = parse_config(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: 'memory:'\npolicy: {{default: deny}}",
            {},
            str,
        )
        tools.print_rows(await inspection.list_tool_rows(config, "notes"), as_json=False)
        tools.print_explanation(await inspection.explain_call(config, "notes", NAME, "{}"), as_json=False)
    tools.print_accepted("notes", [NAME])
    denied = AuditEvent(
        at=1.0, kind="call.denied", actor="bot", server="notes", tool=NAME, detail={"why": NAME}
    )
    output.print_event(denied, as_json=False)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count(SHOWN) == 5
    assert not [line for line in shown.splitlines() if line.startswith("notes/delete_note")]


async def test_explain_prints_a_limit_as_json_with_the_names_that_scripts_read(capsys):
    policy = "{default: deny, tools: {pay: {spend: {of: args.sum, max: 5, window: 1h, on_exceed: require_approval}}}}"
    async with RecordingServer(tools=[{"name": "pay", "inputSchema": {"type": "object"}}]) as recorder:
        server = f"servers: {{shop: {{url: '{recorder.url}'}}}}\nstore: 'memory:'\n"
        config = parse_config(f"{server}policy: {policy}", {}, str)
        explanation = await inspection.explain_call(config, "shop", "pay", '{"sum": 3}')
    tools.print_explanation(explanation, as_json=True)
    [limit] = json.loads(capsys.readouterr().out)["verdict"]["limits"]
    assert {name: limit[name] for name in ("name", "max", "window", "per", "ask", "shared", "of", "amount")} == {
        "name": "tools.pay.spend", "max": 5.0, "window": 3600.0, "per": "session", "ask": True, "shared": False,
        "of": "args.sum", "amount": 3,
    }  # fmt: skip


def test_a_call_that_failed_at_the_server_is_marked(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    failed = {"state": "completed", "outcome": {"is_error": True, "body": {}}, "reviews": [], "needed": 1}
    output.print_state({**WAITING, **failed}, as_json=False)
    assert capsys.readouterr().out.rstrip().endswith("completed (failed at the server)")
