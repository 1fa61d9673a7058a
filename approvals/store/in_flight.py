"""The names (ids and keys of held calls) with a write that was requested and has not ended yet."""

import asyncio
from collections import Counter


class InFlight:
    """Counts the writes of each name. A reader waits for those of the name that it reads."""

    def __init__(self) -> None:
        self._writes: Counter[str] = Counter()
        #: Set when the last write of a name ends; only for names with a reader.
        self._ended: dict[str, asyncio.Event] = {}

    def begin(self, *names: str) -> None:
        """Note a write of *names* that begins."""
        for name in names:
            self._writes[name] += 1

    def end(self, *names: str) -> None:
        """Note a write of *names* that has ended."""
        for name in names:
            self._writes[name] -= 1
            if not self._writes[name]:
                del self._writes[name]
                if (ended := self._ended.pop(name, None)) is not None:
                    ended.set()

    def __contains__(self, name: str) -> bool:
        """Return whether a write of *name* has not ended."""
        return name in self._writes

    async def wait(self, *names: str) -> None:
        """Wait until no write of *names* is in flight."""
        while name := next((name for name in names if name in self._writes), None):
            await self._ended.setdefault(name, asyncio.Event()).wait()
