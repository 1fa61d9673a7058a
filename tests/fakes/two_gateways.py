"""Two gateways in front of one server, on one store object: two replicas in one process."""

from contextlib import AsyncExitStack, asynccontextmanager

from approvals.store.memory.store import MemoryStore
from approvals.store.sqlite.store import SqliteStore
from gateways import POLICY, Clock, build_config, serving
from recording_server import RecordingServer


async def open_memory(_folder):
    return MemoryStore()


async def open_sqlite(folder):
    return await SqliteStore.open(folder / "okayed.db")


#: Opens each kind of store in a folder.
OPENERS = {"memory": open_memory, "sqlite": open_sqlite}


class SharedStore:
    """A store that each gateway opens and closes; the test closes it."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def close(self):
        """Keep the store open for the other gateway."""


@asynccontextmanager
async def two_gateways(store, policy=POLICY, more="", recorder=None, **options):
    """Run two gateways with the same policy, server and clock on *store*; closes the store at the end.

    *options* are those of `assemble`.
    """

    async def open_store(_config, *, restored=False):
        return SharedStore(store)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        recorder = await stack.enter_async_context(recorder or RecordingServer())
        config, clock = (
            build_config(f"notes: {{url: '{recorder.url}'}}", policy, f"store: 'memory:'\n{more}"),
            Clock(),
        )
        yield [
            await stack.enter_async_context(serving(config, recorder, clock, opener=open_store, **options))
            for _ in "ab"
        ]
