"""Logs a problem that lasts: one line when it begins or changes, and one when it ends."""

import logging


class ProblemLog:
    """The log lines about one piece of work that is tried again and again."""

    def __init__(self, log: logging.Logger, work: str) -> None:
        """*work* names the work in the log lines, as in `the sweep`."""
        self._log = log
        self._work = work
        self._problem = ""

    def report(self, problem: object) -> None:
        """Log that an attempt failed, unless the last one failed for the same reason."""
        if str(problem) != self._problem:
            self._log.warning("%s failed and is tried again: %s", self._work, problem)
        self._problem = str(problem)

    def clear(self) -> None:
        """Log that an attempt succeeded, if the last one failed."""
        if self._problem:
            self._log.info("%s works again", self._work)
        self._problem = ""
