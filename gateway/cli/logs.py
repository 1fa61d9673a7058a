"""How the log is written: every entry begins with a line of ours, whatever servers and agents say in it."""

import logging
from typing import TextIO

from approvals import safetext

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFormatter(logging.Formatter):
    """Writes hidden characters out and indents further lines, so that no words can look like an entry or steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return safetext.escape_hidden(super().format(record)).replace("\n", "\n    ")


def configure_logging(stream: TextIO, level: int) -> None:
    """Write the log to *stream* from now on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_LogFormatter(FORMAT))
    logging.basicConfig(level=level, handlers=[handler])
