"""How long each client is kept waiting: by the config's rules, by its default, or by the table."""

from gateway.call.hold_settings import ClientRule
from gateway.hold import known_clients
from rows import each_row


@each_row(
    ("client", "hold_for", "known", "seconds"),
    [
        ("", None, {}, 50.0),
        ("some-agent", None, {}, 50.0),
        ("claude-code", None, {}, 86400.0),
        ("Visual Studio Code - Insiders", None, {}, 86400.0),
        ("mcp", None, {}, 14400.0),
        ("mcpx", None, {}, 50.0),
        ("Cursor-vscode", None, {}, 280.0),
        ("claude-ai", None, {}, 50.0),
        ("opencode", None, {}, 580.0),
        ("qwen-cli-mcp-client-notes", None, {}, 580.0),
        ("gemini-cli-mcp-client", None, {}, 580.0),
        ("mcp (via mcp-remote 0.15.1)", None, {}, 14400.0),
        ("Cursor (via mcp-remote 0.15.1)", None, {}, 280.0),
        ("someone (via mcp-remote 0.15.1)", None, {}, 50.0),
        ("mcp (via mcp-remote 0.15.1)", None, {"*(via mcp-remote*": ClientRule(wait=9.0)}, 9.0),
        ("claude-code", 3.0, {}, 3.0),
        ("claude-code", None, {"claude-*": ClientRule(wait=60.0)}, 60.0),
        ("My-Agent", 3.0, {"my-agent": ClientRule(wait=7.0)}, 7.0),
    ],
)
def test_the_wait_is_the_configs_for_this_client_or_for_all_or_the_tables(client, hold_for, known, seconds):
    assert known_clients.client_hold(client, hold_for, known).wait == seconds


@each_row(
    ("hold_for", "rule", "wait", "learns", "as_result"),
    [
        (None, ClientRule(), 14400.0, True, False),
        (None, ClientRule(as_result=True), 14400.0, True, True),
        (None, ClientRule(wait=30.0, as_result=True), 30.0, False, True),
        (60.0, ClientRule(as_result=True), 60.0, False, True),
        (60.0, ClientRule(wait=30.0), 30.0, False, False),
    ],
)
def test_a_configured_wait_is_fixed_and_any_other_may_be_learned(hold_for, rule, wait, learns, as_result):
    known = known_clients.client_hold("mcp", hold_for, {"mcp": rule})
    assert known == known_clients.ClientHold(wait=wait, learns=learns, as_result=as_result)
