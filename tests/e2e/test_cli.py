"""The command line as users see it: output, exit codes, and one sentence for each error that they can fix."""

import hashlib
import json
import re
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from approvals.store.event_pages import MAX_SEARCHED
from approvals.store.sqlite.store import SqliteStore
from command import BASE, okayed
from process import SHOP
from store_fixtures import a_call, an_event


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "okayed.yaml").write_text(BASE)
    (tmp_path / "okayed.yaml").chmod(0o600)
    return tmp_path


BROKEN = {
    "typo": (
        BASE.replace("require_approval", "requre_approval"),
        r"policy\.default: .*did you mean require_approval\?.*\(line 4\)",
    ),
    "duplicate key": (BASE + "listen: a\nlisten: b\n", r"The key listen appears twice.*\(line 7\)"),
    "unset variable": (
        BASE + "store: ${NOT_SET_ANYWHERE}\n",
        r"store: the environment variable NOT_SET_ANYWHERE is not set\.  \(line 6\)",
    ),
    "bad CEL": (
        BASE + "  tools: {a: {when: 'args.x >', action: deny}}\n",
        r"policy\.tools\.a\.when: this is not valid CEL.*\(line 6\)",
    ),
    "bad schema": (
        BASE + "  tools: {a: {arguments: {type: strin}}}\n",
        r"policy\.tools\.a\.arguments: this is not a valid JSON Schema.*\(line 6\)",
    ),
    "unknown group": (
        BASE + "  tools: {a: {approvers: [ops]}}\n",
        r"there is no approver and no group 'ops'\.  \(line 6\)",
    ),
    "world-writable": (BASE, r"is world-writable.*chmod go-w.*\(line 1\)"),
    "wrong type": (BASE + "listen: [1]\n", r"listen: this must be text or a mapping\.  \(line 6\)"),
    "empty": ("", r"The config is empty.*\(line 1\)"),
    "not YAML": ("a: [b\n", r"This is not valid YAML.*\(line [12]\)"),
}


@pytest.mark.parametrize(("name", "row"), BROKEN.items())
def test_a_broken_config_is_one_sentence_with_its_line_and_exit_1(folder, name, row):
    text, told = row
    file = folder / "okayed.yaml"
    file.write_text(text)
    file.chmod(0o666 if name == "world-writable" else 0o600)
    for command in (["check"], ["run"], ["pending"]):
        done = okayed(*command, cwd=folder)
        assert done.returncode == 1
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert re.search(told, line)


def test_a_valid_config_is_reported_as_valid(folder):
    done = okayed("check", cwd=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "okayed.yaml is valid. Servers: shop.\n", "")


async def test_a_stores_file_is_checked(folder):
    assert "There is no store at " in okayed("check", "--store", cwd=folder).stderr
    store = await SqliteStore.open(folder / "okayed.db")
    await store.append(an_event())
    await store.add(a_call(1))
    await store.close()
    done = okayed("check", "--store", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "The store is intact: 1 calls, 1 events."
    with closing(sqlite3.connect(folder / "okayed.db", isolation_level=None)) as db:
        db.execute("UPDATE calls SET seal = x'00'")
    done = okayed("check", "--store", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "The store is damaged. Faults: 1.\n")
    [line] = done.stdout.splitlines()[1:]
    assert line.startswith(f"Held call hold_{1:026d} does not match its seal: ")


def test_without_a_config_there_is_one_sentence(tmp_path):
    done = okayed("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        1,
        "okayed.yaml does not exist; name the config with -c, or try Okayed without one: okayed demo\n",
    )


@pytest.mark.parametrize("name", ["okayed.yaml", "/dev/null"])
def test_stdio_refuses_an_input_that_cannot_be_waited_for(folder, name):
    with (folder / name).open() as stdin:
        done = okayed("stdio", "shop", cwd=folder, stdin=stdin)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "stdin must be a pipe; let an MCP client start this command.\n"


@pytest.mark.parametrize(
    "args", [["nonsense"], ["check", "--nonsense"], ["deny", "hold_1"], ["log", "--since", "soon"]]
)
def test_wrong_usage_is_exit_2(folder, args):
    assert okayed(*args, cwd=folder).returncode == 2


def test_help_names_every_command(folder):
    done = okayed("--help", cwd=folder)
    for command in (
        "run",
        "stdio",
        "demo",
        "check",
        "tools",
        "explain",
        "pending",
        "show",
        "approve",
        "deny",
        "give-up",
        "watch",
        "log",
        "audit",
        "token",
    ):
        assert command in done.stdout


def test_tools_are_listed_with_their_classification_and_action(folder):
    done = okayed("tools", "--json", cwd=folder)
    tools = {tool["tool"]: tool for tool in json.loads(done.stdout)}
    assert (tools["list_orders"]["category"], tools["list_orders"]["action"]) == ("Read", "allow")
    assert (tools["refund_order"]["category"], tools["refund_order"]["action"]) == (
        "Financial",
        "require_approval",
    )
    table = okayed("tools", "shop", cwd=folder).stdout
    assert "list_orders" in table
    assert "\x1b[" not in table  # no colours in a pipe


def test_a_first_policy_for_the_servers_is_printed_and_loads(folder):
    file = folder / "okayed.yaml"
    printed = okayed("tools", "--policy", cwd=folder).stdout
    file.write_text(BASE.partition("policy:")[0] + printed)
    assert okayed("check", cwd=folder).returncode == 0
    tools = {tool["tool"]: tool for tool in json.loads(okayed("tools", "--json", cwd=folder).stdout)}
    assert {name: tool["action"] for name, tool in tools.items()} == {
        "list_orders": "allow",
        "update_order": "require_approval",
        "run_report": "require_approval",
        "refund_order": "require_approval",
        "delete_customer": "deny",
    }
    assert all(tool["rule"] == f"tools.shop/{name}" for name, tool in tools.items())


def test_a_server_that_cannot_be_asked_is_reported_with_exit_1(folder):
    (folder / "okayed.yaml").write_text(BASE.replace(sys.executable, "/no/such/python"))
    done = okayed("tools", cwd=folder)
    assert done.returncode == 1
    assert "could not be started" in done.stdout.replace("\n", " ")
    assert "could not be started" in okayed("tools", "--json", cwd=folder).stdout


def test_a_server_that_ends_at_once_is_one_sentence(folder):
    (folder / "okayed.yaml").write_text(
        BASE.replace("servers:\n", "servers:\n  brief: {command: ['true']}\n")
    )
    done = okayed("tools", cwd=folder)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "list_orders" in done.stdout
    assert re.search(r"brief +\? +The server (brief has )?ended", done.stdout)


def test_an_unknown_server_is_one_sentence(folder):
    with (folder / "okayed.yaml").open("a") as config:
        config.write("listen: 'unix:agents.sock'\n")  # no other gateway of this machine listens there
    for args in (["tools", "shpo"], ["explain", "shpo", "x"], ["stdio", "shpo"]):
        done = okayed(*args, cwd=folder)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert "shop" in done.stderr


def test_a_verdict_is_explained(folder):
    done = okayed("explain", "shop", "delete_customer", "--args", '{"name": "x"}', cwd=folder)
    assert "shop/delete_customer: require_approval (default)" in done.stdout
    assert "Category Destructive, risk Critical" in done.stdout
    for sentence in (
        'The server says: "Delete a customer and all orders for good."',
        "Deletes or cancels something, possibly for good. A mistake can do serious harm",
        "1 parameter, 1 required:",
        "How do I block delete_customer completely?",
        'hide: ["shop/delete_customer"]',
    ):
        assert sentence in done.stdout
    facts = json.loads(okayed("explain", "shop", "nonesuch", "--json", cwd=folder).stdout)
    assert (facts["listed"], facts["verdict"]["rule"]) == (False, "default")
    assert len(facts["report"]["answers"]) == 6
    assert "does not list this tool" in okayed("explain", "shop", "nonesuch", cwd=folder).stdout
    for odd, told in (
        ("[1]", "--args must be a JSON object, such as "),
        ("{bad", "--args is not JSON: "),
        ('{"a":1,"a":2}', "--args repeats a member in an object."),
    ):
        done = okayed("explain", "shop", "x", "--args", odd, cwd=folder)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert done.stderr.startswith(told)


@pytest.mark.parametrize("kind", ["agent", "approver"])
def test_a_token_is_shown_once_with_its_line_for_the_config(folder, kind):
    done = okayed("token", kind, "alice", cwd=folder)
    secret = done.stdout.strip()
    assert hashlib.sha256(secret.encode()).hexdigest() in done.stderr
    assert "name: alice" in done.stderr


def test_commands_without_a_gateway_or_a_trail_name_the_remedy(folder):
    done = okayed("pending", cwd=folder, OKAYED_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stderr) == (
        1,
        "No gateway answers at http://127.0.0.1:9; start one with: okayed run\n",
    )
    done = okayed("log", "-c", str(folder / "okayed.yaml"), cwd=Path.cwd())
    assert (
        done.stderr
        == f"There is no store at {folder}/okayed.db yet; start the gateway once with: okayed run\n"
    )
    (folder / "okayed.yaml").write_text(BASE + "store: 'memory:'\n")
    assert "keeps no audit trail" in okayed("audit", "verify", cwd=folder).stderr


async def test_the_log_searches_the_whole_trail_page_by_page(folder):
    store = await SqliteStore.open(folder / "okayed.db")
    rare, often = an_event(tool="rare"), [an_event(tool="often")] * (2 * MAX_SEARCHED)
    await store.append(rare, *often, rare, an_event(tool="often"))
    await store.close()
    done = okayed("log", "--tool", "rare", "--json", cwd=folder)
    assert [json.loads(line)["seq"] for line in done.stdout.splitlines()] == [1, 2 * MAX_SEARCHED + 2]


THEIRS = """
version: "1"
default: deny
tools:
  get_note: {rules: [{name: calm, rate_limit: 60/minute}]}
  create_note: {rules: [{name: short, conditions: [{path: args.text, op: regex, value: "^.{0,80}$"}]}]}
"""


def test_an_imported_policy_loads_and_exit_3_means_that_parts_have_no_equal(folder):
    (folder / "theirs.yaml").write_text(THEIRS)
    done = okayed("import", "theirs.yaml", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "okayed.yaml").write_text(f"servers:\n  shop: {SHOP}\n{done.stdout}")
    assert okayed("check", cwd=folder).returncode == 0
    (folder / "theirs.yaml").write_text(THEIRS.replace("regex", "sounds_like"))
    done = okayed("import", "theirs.yaml", cwd=folder)
    assert done.returncode == 3
    assert done.stderr == (
        "These parts of theirs.yaml have no equivalent in Okayed:\n"
        "  tools.create_note.rules[0].conditions[0]: the operator 'sounds_like' is not known; approval is required\n"
    )
    assert "# NO EQUIVALENT: tools.create_note.rules[0].conditions[0]: the operator" in done.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"servers: {}", "theirs.yaml is not a PolicyLayer or Intercept policy"),
        (b"\xff", "theirs.yaml is not UTF-8 text."),
        (b"- hello", "theirs.yaml must be a mapping of keys to values."),
        (
            None,
            "theirs.yaml cannot be read (No such file or directory); give the file of a PolicyLayer or Intercept policy.",
        ),
    ],
)
def test_a_file_that_is_not_a_policy_cannot_be_imported(folder, content, told):
    if content is not None:
        (folder / "theirs.yaml").write_bytes(content)
    done = okayed("import", "theirs.yaml", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert told in line
