"""An approval is for one server: an approved call never runs at another address or with other credentials."""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.digest import digest
from approvals.model import Pin, State
from approvals.store.sqlite.store import SqliteStore
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateway.config.options import OAuthOptions, ServerOptions
from gateway.config.server_identity import IDENTITY_OPTIONS, compute_identity, describe_location
from gateways import TASKS, running, text
from recording_server import RecordingServer, error
from replacing import replace
from rows import each_row

KEY = b"k" * 32
ASKS = "default: require_approval"
MOVED = "No longer valid: This server's address or credentials changed after the approval. NOT EXECUTED."
#: A stdio server that appends each call, its folder and its profile to the given file.
CHILD = """
import json, os, sys
for line in sys.stdin:
    frame = json.loads(line)
    method = frame.get("method")
    if method == "tools/call":
        open(sys.argv[1], "a").write(json.dumps([os.getcwd(), os.environ.get("AWS_PROFILE"), frame["params"]]) + "\\n")
    if "id" not in frame:
        continue
    answers = {
        "initialize": {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "c", "version": "1"}},
        "tools/list": {"tools": [{"name": "create_note", "inputSchema": {"type": "object"}}]},
        "tools/call": {"content": [{"type": "text", "text": "ran create_note"}]},
    }
    known = {"result": answers[method]} if method in answers else {"error": {"code": -32601, "message": "no"}}
    print(json.dumps({"jsonrpc": "2.0", "id": frame["id"], **known}), flush=True)
"""


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path}/x.db"


async def approved(gateway, tool="create_note"):
    """Approve a call after its client has disconnected."""
    agent = asyncio.ensure_future(gateway.call(tool))
    [held] = await gateway.held()
    agent.cancel()
    await asyncio.gather(agent, return_exceptions=True)
    return await gateway.review(held)


@asynccontextmanager
async def restarted(store, before, after, environ=None, now=None):
    """Approve a call with one config of the server, then start the gateway with another."""
    async with running(ASKS, server_options=before, environ=environ, store=store) as gateway:
        held = await approved(gateway)
        assert held.state is State.APPROVED
    async with running(ASKS, server_options=after, environ=now or environ, store=store) as gateway:
        yield gateway, held


# A start with another config.


async def test_a_call_approved_for_one_server_does_not_run_at_another_after_a_restart(store):
    async with RecordingServer() as one, RecordingServer() as other:
        async with restarted(store, f"url: '{one.url}'", f"url: '{other.url}'") as (gateway, held):
            assert text(await gateway.call("create_note")).startswith(MOVED)
            assert (await gateway.gateway.service.get(held.id)).state is State.VOIDED
        assert one.calls == other.calls == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("headers: {X-Tenant: dev}", "headers: {X-Tenant: prod}"),
        ("headers: {X-Tenant: dev}", "headers: {X-Customer: dev}"),
        (
            "headers: {Authorization: 'Bearer ${DEV_TOKEN}'}",
            "headers: {Authorization: 'Bearer ${PROD_TOKEN}'}",
        ),
        ("account: dev", "account: prod"),
        ("headers: {}", "account: prod"),
    ],
)
async def test_an_approved_call_does_not_run_with_other_credentials_or_for_another_account(
    store, before, after
):
    environ = {"DEV_TOKEN": "d", "PROD_TOKEN": "p"}
    async with RecordingServer() as server:
        options = [f"url: '{server.url}', {one}" for one in (before, after)]
        async with restarted(store, *options, environ) as (gateway, _):
            assert text(await gateway.call("create_note")).startswith(MOVED)
        assert server.calls == []


@pytest.mark.parametrize("changed", ["command", "cwd", "env", "reference"])
async def test_an_approved_call_does_not_run_with_another_command_folder_or_environment(
    store, tmp_path, changed
):
    ran = tmp_path / "ran"
    (tmp_path / "other").mkdir()
    script = tmp_path / "stdio_server.py"
    script.write_text(CHILD)

    def options(flag="-B", cwd="", profile="dev"):
        return f"command: ['{sys.executable}', {flag}, '{script}', '{ran}'], cwd: '{tmp_path}{cwd}', env: {{AWS_PROFILE: {profile}}}"

    before, after = {
        "command": (options(), options(flag="-I")),
        "cwd": (options(), options(cwd="/other")),
        "env": (options(), options(profile="prod")),
        "reference": (options(profile="'${PROFILE}'"),) * 2,
    }[changed]
    moves = restarted(store, before, after, {"PROFILE": "dev"}, {"PROFILE": "prod"})
    async with moves as (gateway, _):
        assert text(await gateway.call("create_note")).startswith(MOVED)
    assert not ran.exists()


@pytest.mark.parametrize("cwd", ["", ", cwd: here"])
async def test_an_approved_call_does_not_run_in_the_folder_of_a_gateway_started_elsewhere(
    store, tmp_path, monkeypatch, cwd
):
    for folder in ("one/here", "other/here"):
        (tmp_path / folder).mkdir(parents=True)
    script, ran = tmp_path / "stdio_server.py", tmp_path / "ran"
    script.write_text(CHILD)
    options = f"command: ['{sys.executable}', '{script}', '{ran}']{cwd}"
    monkeypatch.chdir(tmp_path / "one")
    async with running(ASKS, server_options=options, store=store) as gateway:
        await approved(gateway)
    monkeypatch.chdir(tmp_path / "other")
    async with running(ASKS, server_options=options, store=store) as gateway:
        assert text(await gateway.call("create_note")).startswith(MOVED)
    assert not ran.exists()


async def test_an_approved_call_runs_after_a_restart_with_a_rotated_token(store, tmp_path):
    token = tmp_path / "token"
    token.write_text("old")
    async with RecordingServer() as server:
        headers = f"Authorization: 'Bearer ${{TOKEN}}', X-Api-Key: plain, X-Other: '${{file:{token}}}'"
        options = f"url: '{server.url}', headers: {{{headers}}}"
        async with restarted(
            store, options, options.replace("plain", "another"), {"TOKEN": "old"}, {"TOKEN": "new"}
        ) as (gateway, held):
            assert text(await gateway.call("create_note")) == "ran create_note"
            assert (await gateway.gateway.service.get(held.id)).state is State.COMPLETED
        [call] = server.calls
        assert (call.headers["authorization"], call.headers["x-api-key"]) == ("Bearer new", "another")


async def test_a_pending_call_becomes_void_when_the_gateway_starts_with_another_server(store):
    async with RecordingServer() as one, RecordingServer() as other:
        async with running(ASKS, server_options=f"url: '{one.url}'", store=store) as gateway:
            agent = asyncio.ensure_future(gateway.call("create_note"))
            [held] = await gateway.held()
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
        async with running(ASKS, server_options=f"url: '{other.url}'", store=store) as gateway:
            now = await gateway.gateway.service.get(held.id)
            assert (now.state, now.note) == (
                State.VOIDED,
                "This server's address or credentials changed while the call waited.",
            )


async def test_a_task_approved_for_another_server_becomes_void_after_a_restart(store):
    params = {"name": "create_note", "arguments": {}}
    async with RecordingServer() as one, RecordingServer() as other:
        async with running(ASKS, server_options=f"url: '{one.url}'", store=store) as gateway:
            begun = await gateway.ask("tools/call", params, declares=TASKS)
        async with running(ASKS, server_options=f"url: '{other.url}'", store=store) as gateway:
            got = await gateway.ask("tasks/get", {"taskId": begun.result["taskId"]}, declares=TASKS)
            assert "address or credentials changed" in json.dumps(got.result)
        assert one.calls == other.calls == []


async def test_the_claim_itself_compares_the_server_identity():
    async with running(ASKS) as gateway, asyncio.TaskGroup() as tasks:
        agent = tasks.create_task(gateway.call("create_note"))
        [held] = await gateway.held()
        proxy = gateway.gateway.proxy
        proxy.settings = replace(proxy.settings, identities={"notes": "another"})
        await gateway.review(held)
        assert text(await agent).startswith(MOVED)
        assert gateway.ran() == []


# A start with the store of an older version.


async def forgotten(path, call_id):
    """Remove the server identity from a call, as in a store of an older version."""
    store = await SqliteStore.open(path)
    held = await store.get(call_id)
    await store.swap(
        held,
        replace(
            held, version=held.version + 1, identity="", address="", digest=digest(held.call, held.definition)
        ),
    )
    await store.close()


async def test_a_call_of_an_older_version_is_bound_at_the_first_start_and_void_after_its_server_changes(
    store, tmp_path
):
    async with RecordingServer() as one, RecordingServer() as other:
        here, there = f"url: '{one.url}'", f"url: '{other.url}'"
        async with running(ASKS, server_options=here, store=store) as gateway:
            agent = asyncio.ensure_future(gateway.call("create_note"))
            [held] = await gateway.held()
            agent.cancel()
            await asyncio.gather(agent, return_exceptions=True)
        await forgotten(tmp_path / "x.db", held.id)
        async with running(ASKS, server_options=here, store=store) as gateway:
            bound = await gateway.gateway.service.get(held.id)
            assert (bound.identity, bound.address) == (held.identity, held.address)
            assert bound.digest == digest(held.call, held.definition)
            assert (await gateway.kinds()).count("hold.bound") == 1
            assert (await gateway.review(bound)).state is State.APPROVED
        async with running(ASKS, server_options=there, store=store) as gateway:
            assert text(await gateway.call("create_note")).startswith(MOVED)
            assert (await gateway.kinds()).count("hold.bound") == 1
        assert one.calls == other.calls == []


# A config change while the gateway runs.


async def test_a_config_change_that_keeps_the_server_keeps_the_waiting_calls():
    environ = {"TOKEN": "old"}
    async with RecordingServer() as server:
        options = f"url: '{server.url}', headers: {{Authorization: 'Bearer ${{TOKEN}}'}}"
        async with (
            running(ASKS, server_options=options, environ=environ) as gateway,
            asyncio.TaskGroup() as tasks,
        ):
            agent = tasks.create_task(gateway.call("create_note"))
            [held] = await gateway.held()
            rotated = parse_config(
                f"servers: {{notes: {{{options}, may_ask: []}}}}\nstore: 'memory:'\n"
                "approvers: [{name: alice}, {name: bob}]\npolicy: {default: require_approval}",
                {"TOKEN": "new"},
                str,
            )
            await gateway.gateway.adopt(rotated)
            await gateway.review(held)
            assert text(await agent) == "ran create_note"
        assert [one.headers["authorization"] for one in server.calls] == ["Bearer new"]


# Accepted definitions.


async def test_a_definition_accepted_before_servers_had_identities_is_bound_at_the_first_start():
    pin = Pin(server="notes", tool="create_note", hash="h", definition=b"{}")
    config = parse_config(
        "servers: {notes: {url: 'http://127.0.0.1:9/mcp'}}\nstore: 'memory:'\npolicy: {default: deny}",
        {},
        str,
    )
    async with assemble(config, accepted=[pin]) as gateway:
        bound = gateway.catalogue._pins.find_trusted("notes", "create_note")
        assert bound.identity == gateway.proxy.settings.identities["notes"]


async def test_a_definition_from_another_server_is_not_accepted_for_one_that_does_not_answer(store):
    async def silent(request, frame):
        return error(frame, -32603, "not now")

    reads = "default: deny\nmatrix: [{category: [Read], action: allow}]"
    async with RecordingServer() as one, RecordingServer(on_list=silent) as other:
        async with running(reads, "pin: warn", server_options=f"url: '{one.url}'", store=store) as gateway:
            assert text(await gateway.call("get_note")) == "ran get_note"
        async with running(reads, "pin: warn", server_options=f"url: '{other.url}'", store=store) as gateway:
            assert text(await gateway.call("get_note")).startswith("Denied by policy")
        assert other.calls == []


async def test_a_changed_definition_of_a_moved_server_needs_acceptance(store):
    async with RecordingServer() as one, RecordingServer() as other:
        other.tools[0]["description"] = "Get a note, and more."
        reads = "default: require_approval\nmatrix: [{category: [Read], action: allow}]"
        for server, words in (
            (one, "ran get_note"),
            (other, "Denied by policy: The definition of this tool"),
        ):
            async with running(
                reads, "pin: quarantine", server_options=f"url: '{server.url}'", store=store
            ) as gateway:
                assert text(await gateway.call("get_note")).startswith(words)


# The identity itself.

BASE = ServerOptions(
    url="https://mcp.example.com/mcp",
    headers={"X-Tenant": "dev", "Authorization": "Bearer a"},
    oauth=OAuthOptions(token_url="https://login.example.com", client_id="c", client_secret="s", scope="a"),
)
ELSE: dict[str, ServerOptions] = {
    "url": msgspec.structs.replace(BASE, url="https://mcp.example.org/mcp"),
    "transport": msgspec.structs.replace(BASE, transport="sse"),
    "command": msgspec.structs.replace(BASE, command=["x"]),
    "cwd": msgspec.structs.replace(BASE, cwd="/srv"),
    "env": msgspec.structs.replace(BASE, env={"AWS_PROFILE": "prod"}),
    "headers": msgspec.structs.replace(BASE, headers={"X-Tenant": "dev"}),
    "oauth": msgspec.structs.replace(BASE, oauth=None),
    "account": msgspec.structs.replace(BASE, account="prod"),
}


def test_every_identity_option_changes_the_identity():
    assert ELSE.keys() == IDENTITY_OPTIONS.keys()
    assert len({compute_identity(one, KEY) for one in [BASE, *ELSE.values()]}) == len(ELSE) + 1


@each_row("field", ["token_url", "client_id", "scope", "resource"])
def test_every_oauth_option_except_the_secret_changes_the_identity(field):
    other = msgspec.structs.replace(BASE.oauth, **{field: "https://other.example.com"})
    assert compute_identity(msgspec.structs.replace(BASE, oauth=other), KEY) != compute_identity(BASE, KEY)
    rotated = msgspec.structs.replace(BASE.oauth, client_secret="rotated")
    assert compute_identity(msgspec.structs.replace(BASE, oauth=rotated), KEY) == compute_identity(BASE, KEY)


WORD = st.text("abcdefghij", min_size=1, max_size=6)
NAMES = st.sampled_from(["AWS_PROFILE", "REGION", "GITHUB_TOKEN", "API_KEY", "DB_PASSWORD"])
SECRET = {"GITHUB_TOKEN", "API_KEY", "DB_PASSWORD"}


def server_of(env, environ, files):
    lines = json.dumps(dict(env))
    config = parse_config(
        f"servers: {{a: {{command: [x, '--region', '${{REGION}}'], env: {lines}}}}}\npolicy: {{default: deny}}",
        environ, lambda name: files[name],
    )  # fmt: skip
    return config.servers["a"]


@given(
    env=st.lists(
        st.tuples(NAMES, st.sampled_from(["${AWS_PROFILE}", "x${GITHUB_TOKEN}y", "${file:/t}", "plain"])),
        unique_by=lambda one: one[0],
    ),
    changed=st.sampled_from(["AWS_PROFILE", "REGION", "GITHUB_TOKEN", "/t"]),
    value=WORD,
)
def test_a_changed_secret_leaves_the_identity_and_any_other_changed_value_does_not(env, changed, value):
    environ = {"AWS_PROFILE": "0", "REGION": "0", "GITHUB_TOKEN": "0", "API_KEY": "0"}
    before = compute_identity(server_of(env, environ, {"/t": "0"}), KEY)
    after = compute_identity(
        server_of(env, environ | {changed: value}, {"/t": value if changed == "/t" else "0"}), KEY
    )
    counts = changed == "REGION" or any(
        name not in SECRET and f"${{{changed}}}" in text for name, text in env if changed == "AWS_PROFILE"
    )
    assert (before != after) == counts


def test_a_literal_and_a_reference_with_the_same_value_have_the_same_identity():
    assert compute_identity(
        server_of([("AWS_PROFILE", "${AWS_PROFILE}")], {"AWS_PROFILE": "dev", "REGION": "eu"}, {}), KEY
    ) == (compute_identity(server_of([("AWS_PROFILE", "dev")], {"REGION": "eu"}, {}), KEY))


@pytest.mark.parametrize("cwd", [None, ".", "/srv/../srv/data/"])
def test_the_gateways_folder_is_in_the_identity_of_a_child_that_runs_in_it(cwd):
    child = ServerOptions(command=["x"], cwd=cwd)
    elsewhere = compute_identity(child, KEY, "/srv") != compute_identity(child, KEY, "/home")
    assert elsewhere is (cwd in {None, "."})
    whole = ServerOptions(command=["x"], cwd="/srv/data")
    assert compute_identity(child, KEY, "/srv/data") == compute_identity(whole, KEY, "/")
    assert compute_identity(BASE, KEY, "/srv") == compute_identity(BASE, KEY, "/home")


def test_another_key_gives_another_identity():
    assert compute_identity(BASE, KEY) != compute_identity(BASE, b"other")


def test_header_names_are_case_insensitive_in_the_identity():
    lower = msgspec.structs.replace(BASE, headers={name.lower(): one for name, one in BASE.headers.items()})
    assert compute_identity(lower, KEY) == compute_identity(BASE, KEY)


@each_row(
    ("options", "shown"),
    [
        ("url: 'https://mcp.example.com/mcp', account: prod", "https://mcp.example.com/mcp (account prod)"),
        ("url: 'https://bob:hunter2@h.example/s/NTk4ZGU2ZmEtN2Q0Yy00/mcp?key=abc'", "https://[redacted]@h.example/s/[redacted]/mcp?..."),
        ("url: '${HOST}/mcp'", "${HOST}/mcp"),
        ("command: [npx, -y, '@scope/files@2025.7.29', '/srv/my data'], cwd: /srv", "npx -y @scope/files@2025.7.29 '/srv/my data' in /srv"),
        ("command: [x, --api-key, abc, --token=def, '-H', 'Authorization: Basic x']", "x --api-key [redacted] '--token=[redacted]' -H 'Authorization:[redacted]'"),
        ("command: [x, '--key=${GITHUB_TOKEN}', '${HOST}']", "x '--key=${GITHUB_TOKEN}' '${HOST}'"),
    ],
)  # fmt: skip
def test_the_location_of_a_server_has_no_secret(options, shown):
    config = parse_config(
        f"servers: {{a: {{{options}}}}}\npolicy: {{default: deny}}",
        {"HOST": "https://h.example/very-secret", "GITHUB_TOKEN": "hush"}, str,
    )  # fmt: skip
    assert describe_location(config.servers["a"]) == shown
