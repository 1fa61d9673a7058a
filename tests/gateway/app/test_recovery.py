"""A store restored from a copy: calls that ran after the copy was made do not run again."""

import shutil
import sqlite3
from contextlib import asynccontextmanager, closing

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from approval_fixtures import held
from approvals.errors import StoreError
from approvals.model import Decision, Outcome, State
from approvals.store import StartCounts
from approvals.store.sqlite import lock_file
from approvals.store.sqlite.file import StoreFile
from approvals.store.sqlite.writer import Writer
from gateway.app.config import parse_config
from gateway.app.gateway import assemble
from gateways import Clock

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NAMES = ("h.db", "h.db.lock")


def fine(_):
    return None


class Yard:
    """A store, its copies, and the gateways that are started with it one after the other."""

    def __init__(self, folder):
        self.folder, self.clock = folder, Clock()
        self.store = folder / "store"
        self.store.mkdir()
        self.checkpoint = ""

    @asynccontextmanager
    async def started(self, **options):
        config = parse_config(
            f"servers: {{iam: {{url: 'http://127.0.0.1:9/mcp'}}}}\nstore: sqlite:///{self.store}/h.db\n"
            f"approvers: [{{name: alice}}, {{name: bob}}]\npolicy: {{default: require_approval}}\n{self.checkpoint}",
            {},
            str,
        )
        async with assemble(config, self.clock.wall, self.clock, **options) as gateway:
            yield gateway

    def copy(self):
        shutil.copytree(self.store, self.folder / "copy")

    def put_back(self, *names):
        for name in names:
            shutil.copy(self.folder / "copy" / name, self.store / name)

    def remove_lock(self):
        (self.store / "h.db.lock").unlink()

    async def day(self):
        """Approve one call and hold another, copy the store, then run the first and deny the second."""
        async with self.started() as gateway:
            self.approved = await review(gateway, await hold(gateway))
            self.pending = await hold(gateway, tool="other")
            self.sent = await review(gateway, await hold(gateway, tool="sent"))
            await gateway.service.claim(self.sent.id, fine)
            asked = await review(gateway, await hold(gateway, tool="asked"))
            await gateway.service.claim(asked.id, fine)
            self.asked = await gateway.service.finish(asked.id, Outcome(is_error=False, body=b"{}"))
        self.copy()
        async with self.started() as gateway:
            await run(gateway, self.approved)
            await review(gateway, self.pending, Decision.DENY)
            await gateway.service.continue_call(self.asked.id, held(gateway.clock(), tool="answers"))

    def voided(self):
        with closing(sqlite3.connect(self.store / "h.db")) as db:
            return db.execute("SELECT count(*) FROM calls WHERE state = 'voided'").fetchone()[0]

    async def states(self, gateway):
        return [(await gateway.service.get(one.id)).state for one in (self.approved, self.pending, self.sent)]

    async def all_void(self, why, **options):
        """Start a gateway; assert that it detected the copy and that no call in it can run."""
        async with self.started(**options) as gateway:
            assert await self.states(gateway) == [State.VOIDED, State.VOIDED, State.IN_DOUBT]
            events = [one for one in await gateway.store.events() if one.kind == "store.restored"]
            assert [why in one.detail["why"] for one in events] == [True]
            assert (events[0].detail["voided"], events[0].detail["in_doubt"]) == (2, 1)
            with pytest.raises(Exception, match="already continued"):
                await gateway.service.continue_call(
                    self.asked.id, held(gateway.clock(), tool="other answers")
                )
            kept = await hold(gateway, tool="new")
        async with self.started() as gateway:
            assert (await gateway.service.get(kept.id)).state is State.PENDING
            return events[0]


async def hold(gateway, **changes):
    return await gateway.service.hold(held(gateway.clock(), **changes))


async def review(gateway, call, answer=Decision.APPROVE):
    approver = gateway.service.directory.by_name("alice")
    return await gateway.service.review(
        call.id, approver, answer, via="inbox", reason="because", digest=call.digest
    )


async def run(gateway, call):
    _, won = await gateway.service.claim(call.id, fine)
    assert won
    await gateway.service.finish(call.id, Outcome(is_error=False, body=b"{}"))


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


async def test_a_restart_is_not_taken_for_a_restored_copy(yard):
    async with yard.started() as gateway:
        call = await hold(gateway)
        approved = await review(gateway, await hold(gateway, tool="other"))
    for number in (2, 3):
        async with yard.started() as gateway:
            assert (await gateway.service.get(call.id)).state is State.PENDING
            assert (await gateway.service.get(approved.id)).state is State.APPROVED
            assert await gateway.store.start_counts() == StartCounts(number, str(number))
            assert "store.restored" not in [event.kind for event in await gateway.store.events()]


async def test_a_copy_restored_without_its_lock_runs_nothing_again(yard):
    await yard.day()
    yard.put_back("h.db")
    yard.remove_lock()
    event = await yard.all_void("have different start counts")
    assert (event.detail["starts"], event.detail["noted"]) == (1, "")


async def test_a_copy_restored_beside_the_old_lock_is_refused_without_restored(yard):
    await yard.day()
    yard.put_back("h.db")
    with pytest.raises(StoreError, match=r"or continue with this one: okayed run --restored"):
        async with yard.started():
            pass
    event = await yard.all_void("started with --restored", restored=True)
    assert (event.detail["starts"], event.detail["noted"]) == (1, "2")


async def test_a_copy_without_a_later_event_is_detected_by_the_start_counts(yard):
    async with yard.started() as gateway:
        call = await hold(gateway)
    async with yard.started():  # binding the held calls to their server is an event
        pass
    yard.copy()
    async with yard.started():
        pass
    yard.put_back("h.db")
    async with yard.started() as gateway:
        assert (await gateway.service.get(call.id)).state is State.VOIDED


async def test_a_copy_restored_with_its_lock_is_detected_by_an_external_checkpoint_file(yard):
    yard.checkpoint = f"audit: {{checkpoint: {{file: {yard.folder}/outside}}}}"
    await yard.day()
    yard.put_back(*NAMES)
    event = await yard.all_void("external checkpoint")
    assert (event.detail["starts"], event.detail["noted"], event.detail["outside"]) == (1, "1", 2)


async def test_a_copy_with_its_lock_and_the_last_event_is_detected_by_the_start_counts(yard):
    yard.checkpoint = f"audit: {{checkpoint: {{file: {yard.folder}/outside}}}}"
    async with yard.started() as gateway:
        call = await review(gateway, await hold(gateway))
    async with yard.started():  # binding the held calls to their server is an event
        pass
    yard.copy()
    async with yard.started() as gateway:
        await gateway.checkpoints.keep()
        kept = (yard.folder / "outside").read_bytes()
        await run(gateway, call)
    (yard.folder / "outside").write_bytes(kept)  # as if it had been killed before the next checkpoint
    yard.put_back(*NAMES)
    async with yard.started() as gateway:
        assert (await gateway.service.get(call.id)).state is State.VOIDED
        [event] = [one for one in await gateway.store.events() if one.kind == "store.restored"]
        assert event.detail["why"] == "the external checkpoint has a higher start count"


async def test_a_copy_restored_with_its_lock_needs_a_checkpoint_or_restored(
    yard,
):
    await yard.day()
    yard.put_back(*NAMES)
    async with yard.started() as gateway:
        assert (await yard.states(gateway))[:2] == [State.APPROVED, State.PENDING]
    yard.put_back(*NAMES)
    await yard.all_void("started with --restored", restored=True)


async def test_the_external_checkpoint_has_the_last_event_and_start(yard):
    yard.checkpoint = f"audit: {{checkpoint: {{file: {yard.folder}/outside}}}}"
    async with yard.started() as gateway:
        await hold(gateway)
        await gateway.checkpoints.keep()
        [event] = await gateway.store.events()
        said = f'{{"checkpoint":"1:{event.hash}","starts":1}}\n'
        assert (yard.folder / "outside").read_text() == said
        (yard.folder / "outside").unlink()
        await gateway.checkpoints.keep()  # nothing has changed
        assert not (yard.folder / "outside").exists()
        await hold(gateway, tool="other")
        await gateway.checkpoints.keep()
        assert (yard.folder / "outside").read_text().startswith('{"checkpoint":"2:')


async def test_an_unreadable_checkpoint_is_an_error_with_its_path(yard):
    yard.checkpoint = f"audit: {{checkpoint: {{file: {yard.folder}/outside}}}}"
    (yard.folder / "outside").write_text("4711")
    with pytest.raises(
        StoreError, match=r"outside cannot be read \(.*\); repair it, or delete it to start without it"
    ):
        async with yard.started():
            pass


async def test_a_checkpoint_that_cannot_be_kept_is_logged_and_stops_nothing(yard, caplog):
    yard.checkpoint = f"audit: {{checkpoint: {{file: {yard.folder}/no/outside}}}}"
    async with yard.started() as gateway:
        await hold(gateway)
        await gateway.checkpoints.keep()
    assert any("the checkpoint could not be stored" in one.message for one in caplog.records)


class Receiver:
    def __init__(self):
        self.told, self.status = [], 200

    async def take(self, request):
        self.told.append(Webhook(SECRET).verify(await request.read(), dict(request.headers)))
        return web.Response()

    async def answer(self, _):
        return web.json_response(self.told[-1]["data"] if self.told else {}, status=self.status)


@pytest.fixture
async def receiver(yard):
    import time

    yard.clock.now = time.time()  # the Standard Webhooks library compares the signature's time with the clock
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    app.router.add_get("/hook", receiver.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yard.checkpoint = f"audit: {{checkpoint: {{webhook: '{url}', secret: {SECRET}}}}}"
    yield receiver
    await runner.cleanup()


async def test_a_webhook_that_returns_the_last_checkpoint_reveals_a_copy_with_its_lock(yard, receiver):
    await yard.day()
    assert receiver.told[-1]["type"] == "okayed.checkpoint"
    yard.put_back(*NAMES)
    await yard.all_void("external checkpoint")


async def test_a_gateway_starts_when_the_webhook_returns_no_checkpoint(yard, receiver, caplog):
    receiver.status = 405
    await yard.day()
    async with yard.started() as gateway:
        assert (await yard.states(gateway))[0] is State.COMPLETED
    assert any("not compared with a checkpoint" in one.message for one in caplog.records)


# Crashes during startup.


class Killed(BaseException):
    """Ends the process at this point."""


@pytest.fixture
def killed_at(monkeypatch):
    """Return the hook that kills the process before its n-th write to the store or its .lock after the start."""
    left = [None]
    note, do = StoreFile.write_notes, Writer.do

    def step():
        if left[0] is not None:
            left[0] -= 1
            if left[0] < 0:
                raise Killed

    def counted_note(file, **values):
        step()
        note(file, **values)

    async def counted_do(writer, work, **options):
        step()
        return await do(writer, work, **options)

    monkeypatch.setattr(StoreFile, "write_notes", counted_note)
    monkeypatch.setattr(Writer, "do", counted_do)

    def at(number):
        left[0] = number

    return at


STEPS = range(16)


@pytest.mark.parametrize("step", STEPS)
async def test_a_first_start_killed_anywhere_is_not_taken_for_a_restored_copy(yard, killed_at, step):
    killed_at(step)
    try:
        async with yard.started():
            pass
    except Killed:
        pass
    killed_at(None)
    async with yard.started() as gateway:
        assert "store.restored" not in [event.kind for event in await gateway.store.events()]


@pytest.mark.parametrize("step", STEPS)
async def test_a_start_killed_anywhere_is_not_taken_for_a_restored_copy(yard, killed_at, step):
    async with yard.started() as gateway:
        call = await review(gateway, await hold(gateway))
    for _ in range(2):
        killed_at(step)
        try:
            async with yard.started():
                pass
        except Killed:
            pass
    killed_at(None)
    async with yard.started() as gateway:
        assert (await gateway.service.get(call.id)).state is State.APPROVED


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("put_back", ["without its lock", "beside the lock", "with its lock"])
async def test_a_start_with_a_copy_killed_anywhere_leaves_the_copy_detectable(
    yard, killed_at, step, put_back
):
    await yard.day()
    yard.put_back(*(NAMES if put_back == "with its lock" else NAMES[:1]))
    restored = put_back != "without its lock"
    if not restored:
        yard.remove_lock()
    killed_at(step)
    died = False
    try:
        async with yard.started(restored=restored):
            pass
    except Killed:
        died = True
    killed_at(None)
    # Killed before any call was void, it did not mark the copy, so --restored is needed again.
    again = restored and died and not yard.voided()
    async with yard.started(restored=again) as gateway:
        assert await yard.states(gateway) == [State.VOIDED, State.VOIDED, State.IN_DOUBT]


async def test_a_store_without_start_counts_is_not_taken_for_a_copy(yard):
    async with yard.started() as gateway:
        call = await hold(gateway)
    with closing(sqlite3.connect(yard.store / "h.db", isolation_level=None)) as db:
        db.execute("ALTER TABLE progress DROP COLUMN starts")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = 'starts'")
    lock = yard.store / "h.db.lock"
    seq, digest = lock.read_text()[:128].split()[1:]
    lock.write_text(f"{seq} {digest}\n")
    async with yard.started() as gateway:
        assert (await gateway.service.get(call.id)).state is State.PENDING
        assert await gateway.store.start_counts() == StartCounts(1, "1")
    with lock.open("rb") as file:
        assert lock_file.read(file.fileno()).keys() == {"event", "starts", "closed"}
