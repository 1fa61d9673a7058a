"""Looking at what servers offer: the verdict is the one that the gateway would give."""

import pytest

from approvals.store.sqlite import SqliteStore
from gateway.commands import inspecting
from gateway.config import parse
from gateway.pins import Pins, written
from gateway.policy import Action
from recorder import TOOLS, Recorder


@pytest.mark.parametrize("gateway_runs", [True, False])
async def test_a_tool_is_held_against_what_was_accepted_in_the_store(tmp_path, gateway_runs):
    store = await SqliteStore.open(tmp_path / "x.db")
    Pins(store, ()).accept(
        "notes", "get_note", written({**TOOLS[0], "description": "Get a note, as it was."})
    )
    await store.check()
    if not gateway_runs:
        await store.close()
    async with Recorder() as recorder:
        config = parse(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: 'sqlite:///{tmp_path}/x.db'\npin: quarantine\n"
            "policy: {default: allow}", {}, str,
        )  # fmt: skip
        explained = await inspecting.explain(config, "notes", "get_note", "{}")
        rows = {row.tool.name: row.verdict.action for row in await inspecting.tools(config, "notes")}
    if gateway_runs:
        await store.close()
    assert (explained.verdict.action, explained.verdict.rule) == (Action.DENY, "pin")
    assert rows == {"get_note": Action.DENY, "create_note": Action.ALLOW, "delete_note": Action.ALLOW}


async def test_looking_makes_no_store(tmp_path):
    async with Recorder() as recorder:
        config = parse(
            f"servers: {{notes: {{url: '{recorder.url}'}}}}\nstore: 'sqlite:///{tmp_path}/x.db'\n"
            "policy: {default: allow}", {}, str,
        )  # fmt: skip
        assert len(await inspecting.tools(config, "notes")) == 3
    assert list(tmp_path.iterdir()) == []
