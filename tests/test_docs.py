"""The documentation matches the code: commands, links, configs, routes, states."""

import json
import re
from pathlib import Path

import pytest

from approvals.model import State
from approvals.web import openapi
from approvals.web.schemas import Call
from gateway.app import config
from gateway.cli import main as cli
from gateway.config import yaml
from gateway.config.problems import ConfigProblems
from simulated_clients import CLIENTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
PROSE = [*PAGES, ROOT / "CHANGELOG.md"]
BANNED = re.compile(r"\b(?:whoever|nobody|be it|is told|becomes of)\b", re.IGNORECASE)
CODE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield prefix + name


@pytest.mark.parametrize("command", list(commands(cli.app)))
def test_every_command_is_documented(command):
    assert re.search(rf"(okayed |`|, ){command}\b", ALL)


def anchors(page):
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_has_a_target(page):
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        target = page.parent / path if path else page
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def prose_problems(text):
    """Yield each overlong line and each banned word; code blocks may be wide."""
    text = CODE.sub(lambda block: "\n" * block[0].count("\n"), text)
    for number, line in enumerate(text.splitlines(), 1):
        longest = 300 if line.startswith("|") else 120
        if len(line) > longest:
            yield f"line {number} has {len(line)} characters, more than {longest}"
        yield from (f"line {number} says {word!r}" for word in BANNED.findall(line))


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_every_page_has_short_lines_and_plain_words(page):
    assert list(prose_problems(page.read_text(encoding="utf-8"))) == []


def test_a_long_line_a_wide_row_and_a_banned_word_are_reported():
    wide, row, code = "x" * 121, "| " + "x" * 300, "```\n" + "x" * 400 + "\n```"
    text = "\n".join([wide, "x" * 120, row, "| short |", code, "Whoever asks is told."])
    assert list(prose_problems(text)) == [
        "line 1 has 121 characters, more than 120",
        "line 3 has 302 characters, more than 300",
        "line 8 says 'Whoever'",
        "line 8 says 'is told'",
    ]


def test_every_test_file_named_in_the_guarantees_exists():
    for name in re.findall(
        r"tests/[\w/]+\.py", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    ):
        assert (ROOT / name).exists(), name


def test_every_test_named_in_the_guarantees_exists():
    found = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"))
    assert len(set(named)) > 40
    assert [name for name in named if f"def {name}(" not in found] == []


POLICIES = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs" / "policy.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_in_the_documentation_loads(policy):
    indented = "".join(f"  {line}\n" for line in policy.splitlines())
    assert config.parse_config(f"servers: {{iam: {{command: [x]}}}}\npolicy:\n{indented}", {}, str)


AGENTS = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs" / "agents.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize("agents", AGENTS)
def test_every_config_on_the_agents_page_loads(agents):
    servers = "servers: {github: {command: [x]}}\npolicy: {default: deny}\n"
    assert config.parse_config(servers + agents, {"CI_BOT_TOKEN_SHA256": "a" * 64}, str).agents


README = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
HASH = "PUT-THE-HASH-HERE"


def test_the_config_in_the_readme_loads_with_a_hash():
    assert config.parse_config(README[0].replace(HASH, "a" * 64), {}, str).servers["files"].command
    with pytest.raises(ConfigProblems) as refused:
        config.parse_config(README[0], {}, str)
    assert str(refused.value) == (
        "approvers[0].token_sha256: this must be the SHA-256 of a token, 64 hex digits; "
        "make one with: okayed token approver NAME  (line 4)"
    )


SLACK = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1"}


def test_the_slack_config_in_the_readme_can_be_appended():
    named = README[0].replace(HASH, "a" * 64).replace("name: alice,", "name: alice, slack: U01ALICE,")
    loaded = config.parse_config(named + README[1], SLACK, str)
    assert loaded.slack.channel == "C0123456789"
    assert loaded.inbox.url == "https://approvals.example.com"


def test_the_config_on_the_slack_page_loads():
    [text] = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "slack.md").read_text(encoding="utf-8"), re.DOTALL
    )
    rest = "servers: {iam: {command: [x]}}\npolicy: {default: deny}\n"
    assert config.parse_config(rest + text, SLACK, str).inbox.url == "https://approvals.example.com"


def test_the_config_on_the_servers_page_loads():
    [text] = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "servers.md").read_text(encoding="utf-8"), re.DOTALL
    )
    loaded = config.parse_config(text, {"GITHUB_TOKEN": "g", "BILLING_CLIENT_SECRET": "s"}, str)
    assert [server.transport for server in loaded.servers.values()] == ["http", "http", "sse", "http"]


def test_the_config_for_the_compose_file_loads_and_matches_its_ports():
    [text] = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "sidecar.md").read_text(encoding="utf-8"), re.DOTALL
    )
    compose = yaml.read_document(
        (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"), {}, str
    ).value
    gateway, agent = compose["services"]["okayed"], compose["services"]["agent"]
    loaded = config.parse_config(
        text, dict.fromkeys(gateway["environment"], "a" * 64) | {"ALICE_TOKEN_SHA256": "b" * 64}, str
    )
    host, _, inside = gateway["ports"][0].rpartition(":")
    assert loaded.inbox.listen == f"0.0.0.0:{inside}"
    assert loaded.inbox.url == f"http://{host}"
    assert "MCP_URL=http://okayed:8808/mcp/files" in agent["environment"]
    assert (loaded.hosts, loaded.listen, set(loaded.servers)) == (["okayed"], "0.0.0.0:8808", {"files"})
    assert "OKAYED_AGENT_TOKEN" in agent["environment"]


def test_the_api_page_shows_every_route_and_every_member_of_a_call():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    routes = [
        (verb.upper(), path) for path, verbs in openapi.build_document("")["paths"].items() for verb in verbs
    ]
    assert [route for route in routes if not re.search(rf"`{route[0]} {re.escape(route[1])}[?`]", page)] == []
    [call] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert set(json.loads(call)) == set(Call.__struct_fields__)


def test_the_glossary_names_every_state():
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert all(state in glossary for state in State)


GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRIES = [
    (word, meaning)
    for word, meaning in re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE
    )
    if meaning not in {"meaning", "---"}
]


def spellings(word):
    """Return a pattern for a word in prose, `snake_case` or `CamelCase`, singular or plural."""
    return re.compile(r"\b" + re.sub("[ _-]", r"[\\s_-]*", word) + r"s?(?:\b|_)", re.IGNORECASE)


def test_each_word_of_the_glossary_has_one_short_meaning():
    words = [word for word, _ in ENTRIES]
    assert len(words) > 60
    assert sorted(words) == sorted(set(words))
    assert [word for word, meaning in ENTRIES if len(meaning.split()) >= 20] == []


def test_each_word_of_the_glossary_is_used_in_the_code_or_on_another_page():
    code = [*(ROOT / "gateway").rglob("*.py"), *(ROOT / "approvals").rglob("*.py")]
    pages = [page for page in PAGES if page != GLOSSARY]
    elsewhere = "\n".join(file.read_text(encoding="utf-8") for file in [*pages, *code])
    assert [word for word, _ in ENTRIES if not spellings(word).search(elsewhere)] == []


def test_the_readme_shows_the_two_commands():
    assert "make demo" in ALL
    assert "make test" in ALL


TABLE = re.compile(r"^\| ([^|]+) \| ((?:(?:answered|rounds|asks again) \| ?)+)$", re.MULTILINE)
WORDS = {"1": "answered", "rounds": "rounds", "again": "asks again"}


def test_the_client_table_matches_the_simulation():
    shown = {name: [WORDS[word] for word in words.split()] for name, (_, _, words) in CLIENTS.items()}
    told = {
        name: cells.strip(" |").split(" | ")
        for name, cells in TABLE.findall((ROOT / "docs" / "protocol.md").read_text(encoding="utf-8"))
    }
    assert len(told) >= 10
    assert {name: shown[name][: len(cells)] for name, cells in told.items()} == told


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_architecture_page_names_every_folder_of_the_gateway_and_no_other():
    tree = re.search(r"```\ngateway/\n(.*?)```", ARCHITECTURE, re.DOTALL)[1]
    folders = {folder.name for folder in (ROOT / "gateway").iterdir() if (folder / "__init__.py").exists()}
    assert {name for name in re.findall(r"\b(\w+)/ ", tree) if name != "classify"} == folders
    assert set(re.findall(r"\b\w+\.py", tree)) == {"proxy.py", "errors.py"}


def test_every_file_named_on_the_architecture_page_exists():
    named = re.findall(r"`((?:gateway|approvals|tests)/[\w/]+(?:\.py)?)`", ARCHITECTURE)
    trees = re.search(r"```\napprovals/\n(.*?)```", ARCHITECTURE, re.DOTALL)[1]
    named += [f"approvals/{name}" for name in re.findall(r"^  (\w+(?:\.py|/))", trees, re.MULTILINE)]
    assert len(named) > 12
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_gateway_folder_has_at_most_twenty_entries():
    entries = [entry for entry in (ROOT / "gateway").iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= 20


def test_no_two_classes_share_a_name():
    sources = [file for package in ("gateway", "approvals") for file in (ROOT / package).rglob("*.py")]
    names = [
        name
        for file in sources
        for name in re.findall(r"^class (\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert sorted({name for name in names if names.count(name) > 1}) == []
