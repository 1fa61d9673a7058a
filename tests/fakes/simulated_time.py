"""An event loop with simulated time: when it is idle, its clock jumps to the next timer, so days pass in a second."""

import asyncio
import selectors

#: Simulated seconds after which a test is taken to hang.
LONGEST = 30 * 86400.0


class _InstantSelector(selectors.DefaultSelector):
    """Never waits; adds up the time that it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "no timer is left"
            self.passed += max(timeout, 0.0)
            assert self.passed < LONGEST, "the test does not end"
        return ready


class SimulatedTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock starts at 0 and is independent of real time. It allows no real I/O."""

    def __init__(self) -> None:
        self._instant = _InstantSelector()
        super().__init__(self._instant)

    def time(self) -> float:
        return self._instant.passed


def run_in_simulated_time(main):
    """Run a coroutine function on a SimulatedTimeLoop."""
    with asyncio.Runner(loop_factory=SimulatedTimeLoop) as runner:
        return runner.run(main())
