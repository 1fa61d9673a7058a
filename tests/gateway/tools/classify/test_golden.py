"""Tools of real servers, labelled by hand: checks the classifier against each file, and each file against its server.

A label is a reader's judgement of the whole definition. Where the classifier is stricter, the tool's entry has its
classification as `called`, with the reason; the classifier may never be laxer.
"""

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import third_party
from gateway.tools import discovery
from gateway.tools.classify.lexicon import RANK
from gateway.tools.classify.risk import RISKS, Category, Risk, Severity, classify
from gateway.tools.classify.severity import rank
from gateway.upstreams.stdio import ServerCommand, StdioUpstream
from hang import HANG
from npm import MODULES, NODE
from rows import each_row

FILES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "golden").glob("*.yaml"))}
GOLDEN = {server: YAML(typ="safe").load(path) for server, path in FILES.items()}
TOOLS = [(server, tool) for server, golden in GOLDEN.items() for tool in golden["tools"]]
EACH = each_row(("server", "entry"), TOOLS)
RISK_ORDER = list(Risk)

#: The servers installed in the test environment.
HERE = ("awslabs.iam-mcp-server", "awslabs.amazon-mq-mcp-server", "mcp-server-fetch")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
    "GIT_PYTHON_REFRESH": "quiet", "AWS_CONFIG_FILE": str(Path(__file__).parents[3] / "fakes" / "aws.ini"),
}  # fmt: skip


def package(server):
    return MODULES / "@modelcontextprotocol" / server


def on_node(server):
    return [NODE, str(package(server) / "dist" / "index.js")]


MORE = {"awslabs.amazon-mq-mcp-server": ["--allow-resource-creation"]}
#: The versions in the environment mcp1.
LISTED = dict(
    line.split("==") for line in (third_party.LISTS / "mcp1.txt").read_text().splitlines() if "==" in line
)
#: The command that starts each server of the project's environments.
REAL = {
    **{server: [str(Path(sys.executable).parent / server), *MORE.get(server, [])] for server in HERE},
    "mcp-server-git": [third_party.program("mcp1", "mcp-server-git")],
    "mcp-server-time": [third_party.program("mcp1", "mcp-server-time"), "--local-timezone", "UTC"],
    "server-everything": on_node("server-everything"),
    "server-filesystem": [*on_node("server-filesystem"), "."],
    "server-memory": on_node("server-memory"),
}


def label_of(label):
    return Category(label["category"]), Risk(label["risk"]), Severity(label["severity"])


def class_of(classification):
    return classification.category, classification.risk, classification.severity


def classify_by_names(server, entry):
    """Classify a tool by names alone: its own, its siblings' and its parameters'."""
    definition = {
        "name": entry["name"],
        "inputSchema": {"properties": {param: {} for param in entry["params"]}},
    }
    return classify(definition, tuple(tool["name"] for tool in GOLDEN[server]["tools"]))


def is_laxer(one, other):
    """Whether *one* is allowed more than *other*; an Other tool requires approval, like a Write."""
    return RISK_ORDER.index(one[1]) < RISK_ORDER.index(other[1])


def install_server(server):
    """Return the version of a server; install it first if it is missing."""
    if server in HERE:
        return version(server)
    third_party.install()
    if server in LISTED:
        return LISTED[server]
    return json.loads((package(server) / "package.json").read_text())["version"]


async def list_real_tools(server):
    """List the tools of the real server, started as a child process."""
    upstream = StdioUpstream(
        ServerCommand(name=server, argv=REAL[server], env=ENVIRONMENT, cwd="."), lambda: 0.0
    )
    try:
        async with asyncio.timeout(HANG):
            return (await discovery.list_tools(upstream)).tools
    finally:
        await upstream.close()


@EACH
def test_names_alone_never_make_a_tool_laxer_than_its_label(server, entry):
    found = class_of(classify_by_names(server, entry))
    assert not is_laxer(found, label_of(entry))
    if entry["name_alone"]:
        assert found == label_of(entry)


@EACH
def test_each_label_is_consistent_and_each_exception_is_stricter(server, entry):
    category, risk, severity = label_of(entry)
    assert risk is RISKS[category], server
    if "called" in entry:
        called = label_of(entry["called"])
        assert called[1] is RISKS[called[0]]
        assert RANK[called[0]] >= RANK[category]
        assert rank(called[2]) >= rank(severity)
        assert called != (category, risk, severity)
        assert entry["called"]["because"]


@pytest.mark.parametrize("server", REAL)
async def test_each_tool_of_the_real_server_is_classified_as_labelled(server):
    golden = GOLDEN[server]
    assert install_server(server) == golden["version"], "another version: label its tools again"
    tools = await list_real_tools(server)
    entries = {entry["name"]: entry for entry in golden["tools"]}
    params = {tool["name"]: list(tool["inputSchema"].get("properties", ())) for tool in tools}
    assert params == {name: entry["params"] for name, entry in entries.items()}
    names = tuple(tool["name"] for tool in tools)
    found = {tool["name"]: class_of(classify(tool, names)) for tool in tools}
    assert found == {name: label_of(entry.get("called", entry)) for name, entry in entries.items()}
