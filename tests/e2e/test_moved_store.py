"""A folder of Holdpoint, the earlier name: the error says how to rename its files, and renamed files are used."""

import subprocess

from approvals.model import CallId
from approvals.store.sqlite.store import SqliteStore
from process import Person, notes_gateway
from recording_server import RecordingServer
from replacing import replace
from store_fixtures import a_call

EARLIER = CallId("hp_01kajz5v8q4m7x2n9c6b3d0e1f")


def how(refusal: str) -> str:
    """Return the command in an error message."""
    return refusal.partition(" run: ")[2].strip()


async def test_a_folder_with_the_earlier_name_is_refused_until_its_files_are_renamed(
    tmp_path,
):
    async with RecordingServer() as recorder:
        gateway = notes_gateway(tmp_path, recorder.url)
        config, old = gateway.config, gateway.config.with_name("holdpoint.yaml")
        config.rename(old)
        store = await SqliteStore.open(tmp_path / "holdpoint.db")
        await store.add(replace(a_call(server="notes", agent="local"), id=EARLIER, expires_at=9e9))
        await store.close()

        for moved in (config, tmp_path / "okayed.db"):
            code, _, refusal = await gateway.command("check")
            assert (
                code,
                f"rename its {'config' if moved == config else 'store'}, run: " in refusal,
            ) == (1, True)
            assert len(refusal.splitlines()) == 1
            subprocess.run(how(refusal).removesuffix("(line 1)"), shell=True, check=True, cwd=tmp_path.parent)
            assert moved.exists()

        await gateway.start()
        assert sorted(file.name for file in tmp_path.glob("holdpoint*")) == []
        async with Person(gateway.inbox) as alice:
            held = await alice.call(EARLIER)
            status, decided = await alice.post(EARLIER, "approve", digest=held["digest"])
            assert (status, decided["state"]) == (200, "approved")
        await gateway.stop()


async def test_a_config_or_store_with_a_chosen_name_is_not_refused(tmp_path):
    gateway = notes_gateway(tmp_path, "http://127.0.0.1:9/mcp")
    gateway.config.write_text(gateway.config.read_text().replace("okayed.db", "mine.db"))
    (tmp_path / "holdpoint.yaml").touch()
    (tmp_path / "holdpoint.db").touch()
    assert (await gateway.command("check"))[0] == 0
