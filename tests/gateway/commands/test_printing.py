"""What the command line shows on a terminal."""

import time
from datetime import UTC, datetime

import pytest

from gateway.commands import printing

WAITING = {
    "id": "hp_01kajz5v8q4m7x2n9c6b3d0e1f", "server": "iam", "tool": "put_user_policy", "agent": "ci-bot", "category": "Write",
    "severity": "medium", "arguments_text": '{"user_name":"bob","policy_document":"a document that is much longer than a line"}',
}  # fmt: skip


def expiring(seconds: float) -> dict:
    at = datetime.fromtimestamp(time.time() + seconds, UTC)
    return {**WAITING, "expires_at": at.isoformat(timespec="seconds").replace("+00:00", "Z")}


@pytest.mark.parametrize("columns", ["80", "100", "200"])
def test_an_id_is_on_one_line_however_narrow_the_terminal_is(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    printing.calls([expiring(890)], as_json=False)
    shown = capsys.readouterr().out
    assert WAITING["id"] in shown
    assert all(len(line) <= int(columns) for line in shown.splitlines())


@pytest.mark.parametrize(
    ("seconds", "said"), [(890, "14 min"), (-5, "0 s"), (5 * 3600 + 30, "5 h"), (90 * 60 + 30, "90 min")]
)
def test_the_time_that_is_left_is_said_as_people_say_it(seconds, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    printing.calls([expiring(seconds)], as_json=False)
    assert f"  {said}  " in capsys.readouterr().out
