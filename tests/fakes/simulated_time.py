"""Days in a second: an event loop whose time jumps to the next timer when nothing else is to be done."""

import asyncio
import selectors

#: Seconds after which a test that has not come to its end never will.
LONGEST = 30 * 86400.0


class _Jumping(selectors.DefaultSelector):
    """Never waits; says how long it would have."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing is left to happen"
            self.passed += max(timeout, 0.0)
            assert self.passed < LONGEST, "it goes on without end"
        return ready


class LongLoop(asyncio.SelectorEventLoop):
    """Its clock starts at nought and knows no real time. Nothing that runs on it may do real I/O."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed


def run_long(main):
    """Run a coroutine function on such a loop."""
    with asyncio.Runner(loop_factory=LongLoop) as runner:
        return runner.run(main())
