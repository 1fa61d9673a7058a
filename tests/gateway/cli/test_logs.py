"""The log: no text can forge an entry."""

import io
import logging

import pytest

from gateway.cli import logs


@pytest.fixture
def log():
    """The text of a new log; the previous handlers are restored afterwards."""
    root, written = logging.getLogger(), io.StringIO()
    before, root.handlers = root.handlers, []
    level = root.level
    logs.configure_logging(written, logging.INFO)
    yield written
    root.handlers = before
    root.setLevel(level)


def entries(log):
    return [line.split(" ", 2)[2] for line in log.getvalue().splitlines() if not line.startswith("    ")]


def test_a_tool_name_cannot_forge_a_log_entry_or_control_a_terminal(log):
    name = "bad\n2026-11-21 12:00:00,000 INFO okayed: all is well\r\x1b[31m\u2028x"
    logging.getLogger("okayed.servers").warning("%s/%s: %s", "notes", name, "quarantined")
    assert entries(log) == ["WARNING okayed.servers: notes/bad"]
    assert log.getvalue().splitlines()[1:] == [
        r"    2026-11-21 12:00:00,000 INFO okayed: all is well\u{000D}\u{001B}[31m\u{2028}x: quarantined"
    ]


def test_a_traceback_is_indented_under_its_log_entry(log):
    try:
        raise ValueError("one\ntwo")
    except ValueError:
        logging.getLogger("okayed").exception("an exchange failed")
    assert entries(log) == ["ERROR okayed: an exchange failed"]
    assert "    ValueError: one\n    two\n" in log.getvalue()


def test_a_slack_outage_is_one_line(log):
    try:
        raise ConnectionRefusedError(111, "Connection refused")
    except ConnectionRefusedError:
        logging.getLogger("slack_sdk.socket_mode.aiohttp").exception("Failed to connect; Retrying...")
    [line] = log.getvalue().splitlines()
    assert "Failed to connect" in line


def test_a_fault_in_the_slack_sdk_keeps_its_traceback(log):
    try:
        raise LookupError("no such member")
    except LookupError:
        logging.getLogger("slack_sdk.socket_mode.aiohttp").exception("Failed to run a listener")
    assert "LookupError" in log.getvalue()
