"""`okayed check --store`, in this process."""

import sqlite3
from contextlib import closing

import pytest

from approvals.store.sqlite.store import SqliteStore
from gateway.app.config import parse_config
from gateway.cli.check import DamagedStore, print_store_check
from gateway.errors import UserError
from store_fixtures import a_call, an_event


def config_of(store, key="k" * 32):
    return parse_config(
        f"servers: {{iam: {{url: 'http://127.0.0.1:9/mcp'}}}}\nstore: '{store}'\nstore_key: {key}\n"
        "approvers: [{name: alice}]\npolicy: {default: require_approval}\n",
        {},
        str,
    )


@pytest.fixture
async def path(tmp_path):
    store = await SqliteStore.open(tmp_path / "okayed.db", chain_key=b"k" * 32)
    call = a_call(1)
    detail = {"version": call.version, "state": call.state}
    await store.add(call, an_event("hold.pending", call=call.id, detail=detail))
    await store.append(an_event())
    await store.close()
    return tmp_path / "okayed.db"


async def test_an_intact_store_is_one_line(path, capsys):
    print_store_check(config_of(f"sqlite:///{path}"))
    assert capsys.readouterr().out == "The store is intact: 1 calls, 2 events.\n"


async def test_each_fault_is_one_line_without_control_characters(path, capsys):
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE calls SET id = 'hold_\x1b[2J' || char(10)")
    with pytest.raises(DamagedStore) as refused:
        print_store_check(config_of(f"sqlite:///{path}"))
    lines = capsys.readouterr().out.splitlines()
    assert str(refused.value) == f"The store is damaged. Faults: {len(lines)}."
    assert any("hold_\\u{001B}[2J" in line for line in lines)
    assert all(line.endswith(".") for line in lines)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("memory:", "An in-memory store has no file to check."),
        (
            "sqlite:////no/such/okayed.db",
            "There is no store at /no/such/okayed.db yet; start the gateway once with: okayed run",
        ),
    ],
)
def test_without_a_file_there_is_nothing_to_check(store, said):
    with pytest.raises(UserError) as refused:
        print_store_check(config_of(store))
    assert str(refused.value) == said
